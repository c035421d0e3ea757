import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, SOON } from "./lab.ts";
import { MAIN_PORT, POLICY_CASES, type Reach } from "./policy-cases.ts";
import { pod, SHOP } from "./shop.ts";

/** Five of each eighteen cases: all kinds of fields are among them. */
const SAMPLE = POLICY_CASES.filter((_, index) => index % 3 === 0 && index % 18 !== 0);

const FRIENDS = `
apiVersion: v1
kind: Namespace
metadata: { name: friends, labels: { istio.io/dataplane-mode: ambient } }
---
${pod("peer", { node: "node-1", namespace: "friends" })}`;

const SOURCES = { client: "client.shop", peer: "peer.friends", legacy: "legacy.outside" } as const;

const lab = new Lab();
let farIp = "";

beforeAll(async () => {
  await lab.up(SHOP + FRIENDS);
  farIp = await lab.ipOf("far");
});
afterAll(() => lab.down());

/** The server on the main port answers HTTP, the one on the other port greets. */
async function reaches(source: keyof Reach, port: number): Promise<boolean> {
  if (port === MAIN_PORT) {
    return (await lab.reach(SOURCES[source], `http://${farIp}:${port}/`)) === "reached";
  }
  const greeting = `require("net").connect(${port}, "${farIp}").on("error", () => {})
    .setTimeout(3_000, function () { this.destroy(); }).pipe(process.stdout);`;
  return (await lab.exec(SOURCES[source], process.execPath, "-e", greeting)).startsWith("220");
}

async function reachOf(port: number): Promise<Reach> {
  const [client, peer, legacy] = await Promise.all(
    (["client", "peer", "legacy"] as const).map((source) => reaches(source, port)),
  );
  return { client: client!, peer: peer!, legacy: legacy! };
}

/** A policy without effect that tells when ztunnel has what was applied with it. */
const marker = (name: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: friends }
spec: { action: DENY }
`;

async function arrived(name: string): Promise<void> {
  const policies = () => lab.must("ztunnel", "policies", "--node", "node-2", "-o", "json");
  await expect.poll(policies, SOON).toContain(name);
}

describe("who reaches a pod, through real pods", () => {
  it("is tried in at least 50 cases", () => {
    expect(SAMPLE.length).toBeGreaterThanOrEqual(50);
  });

  it.each(SAMPLE.map((policyCase, index) => ({ ...policyCase, id: `marker-${index}-end` })))(
    "under: $name",
    async ({ policies, port, reach, id }) => {
      await lab.whileApplied([...policies, marker(id)].join("---\n"), async () => {
        await arrived(id);
        expect(await reachOf(port)).toEqual(reach);
      });
    },
  );
});
