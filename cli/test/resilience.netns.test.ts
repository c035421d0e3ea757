import { afterAll, beforeAll, describe, it } from "vitest";
import { expectAllServed, underLoad } from "./http-load.ts";
import { Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

const CERTIFICATE_LIFETIME_S = 60;
/** Long enough for every certificate to be replaced twice. */
const LOAD_S = 75;
const OUTAGE_S = 60;
const URLS = ["http://near/", "http://far/"];

describe.concurrent("a mesh under load", () => {
  const shortLived = new Lab({ SECRET_TTL: `${CERTIFICATE_LIFETIME_S}s` });
  const lonely = new Lab();

  beforeAll(() => Promise.all([shortLived.up(SHOP), lonely.up(SHOP)]));
  afterAll(() => Promise.all([shortLived.down(), lonely.down()]));

  it("renews certificates that live a minute, without one failed request", async ({ expect }) => {
    const serial = async () => {
      const text = await shortLived.must(
        "ztunnel",
        "certificates",
        "--node",
        "node-2",
        "-o",
        "json",
      );
      return text
        .match(/"serialNumber": "\w+"/g)
        ?.sort()
        .join(" ");
    };
    const before = await serial();
    expect(before).toBeDefined();
    expectAllServed(expect, await underLoad(shortLived, LOAD_S, URLS), LOAD_S);
    expect(await serial()).not.toBe(before);
  });

  it("goes on while the control plane is away, and catches up when it is back", async ({
    expect,
  }) => {
    const { pid } = await lonely.component("istiod-lite");
    process.kill(pid!, "SIGSTOP");
    try {
      expectAllServed(expect, await underLoad(lonely, OUTAGE_S, URLS), OUTAGE_S);
    } finally {
      process.kill(pid!, "SIGCONT");
    }
    const strict = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }`;
    await lonely.whileApplied(strict, async () => {
      const reach = () => lonely.reach("legacy.outside", "http://far.shop/");
      await expect.poll(reach, { timeout: 20_000, interval: 100 }).toBe("refused");
    });
    const reach = () => lonely.reach("legacy.outside", "http://far.shop/");
    await expect.poll(reach, SOON).toBe("reached");
  });
});
