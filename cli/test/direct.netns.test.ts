// Pods of one node that talk past ztunnel (mode `direct`), as a user meets it: a label or an option, the
// same answers, the same refusals, and everything that tells of connections tells of these.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

const NEAR = "http://near.shop/";
const LABEL = "ambit.io/same-node";
const AGENT_METRICS = "http://127.0.0.1:15014/metrics";

interface ListedConnection {
  readonly direction: string;
  readonly protocol: string;
  readonly originalDst: string;
}

const lab = new Lab();
beforeAll(() => lab.up(SHOP, "--redirection", "ebpf"));
afterAll(() => lab.down());

const label = (...args: string[]) => lab.must("local", "label", ...args);
const linesBy = async (path: string) =>
  (await lab.accessLines("node-1")).filter((line) => line.includes(`path=${path}`)).length;

/** A change, a first call that ztunnel relays, and one that is told of as it went. */
const PATH_SOON = { timeout: 20_000, interval: 50 };

/** How the access lines say that the next calls from client to near travel. */
async function expectPath(path: "direct" | "local" | "hbone"): Promise<void> {
  await expect
    .poll(async () => {
      const before = await linesBy(path);
      expect(await lab.get("client.shop", NEAR)).toContain("near sees");
      await expect.poll(() => linesBy(path), { timeout: 1_000 }).toBeGreaterThan(before);
      return path;
    }, PATH_SOON)
    .toBe(path);
}

const explained = async () => {
  const answer = await lab.must("explain", "client.shop", "near.shop:80", "-o", "json");
  return (JSON.parse(answer) as { path: string }).path;
};

/** A policy of the shop that denies what calls near's application port as client. */
const DENY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-client, namespace: shop }
spec:
  selector: { matchLabels: { app: near } }
  action: DENY
  rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }] }]
`;

describe("the label ambit.io/same-node", () => {
  it("is not there at first: ztunnel relays", async () => {
    await expectPath("local");
    expect(await explained()).toBe("local");
  });

  it("of a namespace lets its pods talk directly, and of a pod takes that back", async () => {
    await label("namespace", "shop", `${LABEL}=direct`);
    await expectPath("direct");
    expect(await explained()).toBe("direct");
    await label("pod", "near", "-n", "shop", `${LABEL}=hbone`);
    await expectPath("hbone");
    await label("pod", "near", "-n", "shop", `${LABEL}-`);
    await expectPath("direct");
  });
});

describe("a direct connection", () => {
  it("goes past the node's network, too, once the agent has seen that the pods talk so", async () => {
    await label("namespace", "shop", `${LABEL}=direct`);
    await expectPath("direct");
    const { netns } = (await lab.status()).nodes.find(({ name }) => name === "node-1")!;
    const curl = ["netns", "exec", netns, "curl", "-s", AGENT_METRICS];
    const metrics = async () => (await lab.run("ip", curl)).stdout;
    await expect
      .poll(async () => {
        await lab.get("client.shop", NEAR);
        return metrics();
      }, PATH_SOON)
      .toMatch(/^ambit_bpf_events_total\{event="direct_shortcut"\} [1-9]/m);
    expect(await metrics()).toMatch(/^ambit_cni_shortcut_pods\{problem=""\} [2-9]/m);
  });

  it("is listed while it lives, and ends when a policy forbids it", async () => {
    await label("namespace", "shop", `${LABEL}=direct`);
    await expectPath("direct");
    const script = "exec 3<>/dev/tcp/near.shop/9000; echo hello >&3; head -n1 <&3; cat <&3";
    await lab.get("client.shop", "http://near.shop:9000/");
    const talking = lab.exec("client.shop", "bash", "-c", script);
    await expect
      .poll(async () => {
        const text = await lab.must("ztunnel", "connections", "--node", "node-1", "-o", "json");
        return (JSON.parse(text) as ListedConnection[]).filter(
          ({ protocol }) => protocol === "DIRECT",
        );
      }, SOON)
      .toHaveLength(2);
    const startMs = performance.now();
    await lab.whileApplied(DENY, async () => {
      await talking;
      expect(performance.now() - startMs).toBeLessThan(SOON.timeout);
      expect(await lab.reach("client.shop", NEAR)).toBe("refused");
      const ended = (await lab.accessLines("node-1")).find(
        (line) => line.includes("path=direct") && line.includes("reason=POLICY_CHANGED"),
      );
      expect(ended).toContain("explicitly denied by: shop/no-client");
    });
    await expect.poll(() => lab.reach("client.shop", NEAR), SOON).toBe("reached");
  });
});
