import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Dialer } from "./dialer.ts";
import { Lab, SOON } from "./lab.ts";
import { POLICY_CASES, type Reach } from "./policy-cases.ts";
import { pod, SHOP } from "./shop.ts";

/** Five of each eighteen cases: all kinds of fields are among them. */
const SAMPLE = POLICY_CASES.filter((_, index) => index % 3 === 0 && index % 18 !== 0);

const FRIENDS = `
apiVersion: v1
kind: Namespace
metadata: { name: friends, labels: { istio.io/dataplane-mode: ambient } }
---
${pod("peer", { node: "node-1", namespace: "friends" })}`;

const lab = new Lab();
let farIp = "";
let dialers: Readonly<Record<keyof Reach, Dialer>>;

beforeAll(async () => {
  await lab.up(SHOP + FRIENDS);
  farIp = await lab.ipOf("far");
  dialers = {
    client: new Dialer(lab, "client.shop"),
    peer: new Dialer(lab, "peer.friends"),
    legacy: new Dialer(lab, "legacy.outside"),
  };
});
afterAll(async () => {
  for (const dialer of Object.values(dialers)) dialer.close();
  await lab.down();
});

async function reachOf(port: number): Promise<Reach> {
  const [client, peer, legacy] = await Promise.all(
    [dialers.client, dialers.peer, dialers.legacy].map((dialer) => dialer.reaches(farIp, port)),
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
