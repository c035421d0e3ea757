// A watch for packets between pods of the shop that no tunnel carries, and the policy that forbids them.

import { execFileSync } from "node:child_process";
import type { Lab } from "./lab.ts";

/** Every plain connection to a pod of the namespace is refused. */
export const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
---`;

const TABLE = `
table inet plaintext {
  counter seen { }
  chain forward {
    type filter hook forward priority 0;
    tcp dport 15008 accept
    tcp sport 15008 accept
    ip saddr PODS ip daddr PODS meta l4proto tcp counter name seen
  }
}`;

/** Who talks in the shop under load. */
const PODS = new Set(["client", "near", "far"]);

async function nodeNetns(lab: Lab): Promise<string[]> {
  return (await lab.status()).nodes.map(({ netns }) => netns);
}

/** From now on counts, between client, near and far, every TCP packet on a node that is not of a tunnel. */
export async function watchForPlaintext(lab: Lab): Promise<void> {
  const { nodes, pods } = await lab.status();
  const ips = pods.filter(({ name }) => PODS.has(name)).map((pod) => pod.ips[0]!);
  const input = TABLE.replaceAll("PODS", `{ ${ips.join(", ")} }`);
  for (const { netns } of nodes) {
    execFileSync("ip", ["netns", "exec", netns, "nft", "-f", "-"], { input });
  }
}

/** What was counted, on each node. */
export async function plaintextPackets(lab: Lab): Promise<number[]> {
  return (await nodeNetns(lab)).map((netns) => {
    const args = ["netns", "exec", netns, "nft", "list", "counters", "table", "inet", "plaintext"];
    const [, packets] = /packets (\d+) /.exec(execFileSync("ip", args, { encoding: "utf8" }))!;
    return Number(packets);
  });
}
