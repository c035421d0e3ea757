import { afterAll, beforeAll, describe, type ExpectStatic, it } from "vitest";
import { Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

const CERTIFICATE_LIFETIME_S = 60;
/** Long enough for every certificate to be replaced twice. */
const LOAD_S = 75;
const OUTAGE_S = 60;
/** Fewer would mean that the load waited for something. */
const REQUESTS_PER_SECOND_MIN = 20;
const URLS = ["http://near/", "http://far/"];

interface LoadResult {
  readonly sent: number;
  readonly bad: Readonly<Record<string, number>>;
}

/** Requests one after another for some seconds, each on a new connection; prints what went wrong. */
const load = (seconds: number, urls: readonly string[]) => `
  const http = require("http");
  const urls = ${JSON.stringify(urls)};
  const end = Date.now() + ${seconds} * 1000;
  const bad = {};
  let sent = 0;
  const next = (url) => {
    if (Date.now() > end) return;
    sent++;
    const again = () => setTimeout(next, 5, url);
    http.get(url, { agent: false }, (r) => {
      let body = ""; r.on("data", (c) => body += c);
      r.on("end", () => { if (!body.includes("sees")) bad[body] = (bad[body] ?? 0) + 1; again(); });
    }).on("error", (e) => { bad[e.code] = (bad[e.code] ?? 0) + 1; again(); });
  };
  urls.forEach(next);
  process.on("exit", () => console.log(JSON.stringify({ sent, bad })));`;

async function underLoad(lab: Lab, seconds: number, urls: readonly string[]): Promise<LoadResult> {
  const text = await lab.exec("client.shop", process.execPath, "-e", load(seconds, urls));
  return JSON.parse(text) as LoadResult;
}

function expectAllServed(expect: ExpectStatic, { sent, bad }: LoadResult, seconds: number): void {
  expect(bad).toEqual({});
  expect(sent).toBeGreaterThan(seconds * REQUESTS_PER_SECOND_MIN);
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
