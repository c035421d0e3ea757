import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, type ExpectStatic, it } from "vitest";
import { Lab, SOON } from "./lab.ts";
import { expectAllServed, underLoad } from "./load/load.ts";
import { STRICT } from "./plaintext.ts";
import { SHOP } from "./shop.ts";

const CERTIFICATE_LIFETIME_S = 60;
/** Long enough for every certificate to be replaced twice. */
const LOAD_S = 75;
const OUTAGE_S = 60;
/** Such a load goes on for long: it leaves some of the machine to the other tests. */
const PAUSE_MS = 20;

/** Loads a mesh for so long; every request must be answered. */
async function allServed(expect: ExpectStatic, lab: Lab, seconds: number): Promise<void> {
  const outcome = await underLoad(lab, { pauseMs: PAUSE_MS }, () => pause(seconds * 1000));
  expectAllServed(expect, outcome, seconds);
}

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
    await allServed(expect, shortLived, LOAD_S);
    expect(await serial()).not.toBe(before);
  });

  it("goes on while the control plane is away, and catches up when it is back", async ({
    expect,
  }) => {
    const { pid } = await lonely.component("istiod-lite");
    process.kill(pid!, "SIGSTOP");
    try {
      await allServed(expect, lonely, OUTAGE_S);
    } finally {
      process.kill(pid!, "SIGCONT");
    }
    await lonely.whileApplied(STRICT, async () => {
      const reach = () => lonely.reach("legacy.outside", "http://far.shop/");
      await expect.poll(reach, { timeout: 20_000, interval: 100 }).toBe("refused");
    });
    const reach = () => lonely.reach("legacy.outside", "http://far.shop/");
    await expect.poll(reach, SOON).toBe("reached");
  });
});
