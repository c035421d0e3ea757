import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Dialer } from "./dialer.ts";
import { isOurs, Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

type Outcome = "reached" | "refused";

const lab = new Lab();
const FROM_CLIENT = ["client.shop", "far"] as const;
const FROM_LEGACY = ["legacy.outside", "far.shop"] as const;
const dialers = new Map<string, Dialer>();

beforeAll(async () => {
  await lab.up(SHOP);
  for (const [pod] of [FROM_CLIENT, FROM_LEGACY]) dialers.set(pod, new Dialer(lab, pod));
});
afterAll(async () => {
  for (const dialer of dialers.values()) dialer.close();
  await lab.down();
});

const peerAuthentication = (spec: string) => `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { ${spec} }`;

const authorization = (action: string, rules: string, app = "far") => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: shop }
spec: { action: ${action}, selector: { matchLabels: { app: ${app} } }, rules: ${rules} }`;

/** While `yaml` is applied each client fares as told; afterwards all reach their server again. */
async function bites(
  yaml: string,
  checks: readonly (readonly [pod: string, service: string, outcome: Outcome])[],
): Promise<void> {
  await lab.whileApplied(yaml, async () => {
    for (const [pod, service, outcome] of checks)
      await expect.poll(() => reach(pod, service), SOON).toBe(outcome);
  });
  for (const [pod, service] of checks)
    await expect.poll(() => reach(pod, service), SOON).toBe("reached");
}

async function reach(pod: string, service: string): Promise<Outcome> {
  return (await dialers.get(pod)!.reaches(service, 80)) ? "reached" : "refused";
}

describe("PeerAuthentication, within a second and lifted again", () => {
  it("STRICT refuses who has no identity, and only them", () =>
    bites(peerAuthentication("mtls: { mode: STRICT }"), [
      [...FROM_LEGACY, "refused"],
      [...FROM_CLIENT, "reached"],
      ["client.shop", "near", "reached"],
    ]));

  it("PERMISSIVE lets both in", () =>
    bites(peerAuthentication("mtls: { mode: PERMISSIVE }"), [
      [...FROM_LEGACY, "reached"],
      [...FROM_CLIENT, "reached"],
    ]));

  it("a permissive port stays open under STRICT", () =>
    bites(
      peerAuthentication(
        'selector: { matchLabels: { app: far } }, mtls: { mode: STRICT }, portLevelMtls: { "8080": { mode: PERMISSIVE } }',
      ),
      [[...FROM_LEGACY, "reached"]],
    ));
});

describe("AuthorizationPolicy, within a second and lifted again", () => {
  it.each<[string, string, string, Outcome, Outcome]>([
    [
      "principal",
      "ALLOW",
      source("principals: [cluster.local/ns/shop/sa/client]"),
      "reached",
      "refused",
    ],
    [
      "another principal",
      "ALLOW",
      source("principals: [cluster.local/ns/shop/sa/near]"),
      "refused",
      "refused",
    ],
    ["namespace", "ALLOW", source("namespaces: [shop]"), "reached", "refused"],
    ["namespace", "DENY", source("namespaces: [shop]"), "refused", "reached"],
    ["port", "DENY", '[{ to: [{ operation: { ports: ["8080"] } }] }]', "refused", "refused"],
    [
      "another port",
      "DENY",
      '[{ to: [{ operation: { ports: ["9000"] } }] }]',
      "reached",
      "reached",
    ],
    ["address block", "DENY", source("ipBlocks: [10.244.1.0/24]"), "refused", "reached"],
    ["nothing", "ALLOW", "[]", "refused", "refused"],
  ])("by %s: %s", (_, action, rules, client, legacy) =>
    bites(authorization(action, rules), [
      [...FROM_CLIENT, client],
      [...FROM_LEGACY, legacy],
    ]),
  );

  it("bites on one node too", () =>
    bites(authorization("DENY", "[{}]", "near"), [["client.shop", "near", "refused"]]));

  it.runIf(isOurs("node-1"))("is named by explain", () =>
    lab.whileApplied(authorization("DENY", source("namespaces: [shop]")), async () => {
      await expect.poll(() => reach(...FROM_CLIENT), SOON).toBe("refused");
      const text = await lab.must("explain", "client.shop", "far.shop:80", "-o", "json");
      expect(JSON.parse(text)).toMatchObject({ verdict: "denied", decidedBy: "shop/p" });
    }),
  );
});

function source(field: string): string {
  return `[{ from: [{ source: { ${field} } }] }]`;
}
