// `npm run interop -- PATH`: the acceptance suites of traffic, policy, labels and waypoints with another ztunnel
// (Istio's) given by path: on the node that serves, on the one that dials, and on both. Control plane,
// CA and node agents are ours. Then it and ours through waypoints and to other networks, both ways.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";

const SUITES = ["traffic", "policy", "labels", "waypoint", "service-entry", "control-plane"].map(
  (it) => `cli/test/${it}`,
);
const PLACES = [["node-2"], ["node-1"], ["node-1", "node-2"]];

const [path] = process.argv.slice(2);
if (path === undefined || !existsSync(path)) {
  console.error(
    `usage: npm run interop -- PATH, where PATH is a ztunnel program (${path ?? "none"})`,
  );
  process.exit(2);
}

for (const nodes of PLACES) {
  console.log(`interop: ${path} on ${nodes.join(" and ")}`);
  const peers = nodes.map((node) => `${node}=${resolve(path)}`).join(",");
  run(SUITES, { PEER_ZTUNNELS: peers });
}
console.log(`interop: ${path} and ours, through waypoints and to other networks`);
run(["ztunnel/test/interop", "ztunnel/test/names", "ztunnel/test/revocation"], {
  PEER_ZTUNNEL: resolve(path),
});

function run(suites: readonly string[], peers: Readonly<Record<string, string>>): void {
  const { status } = spawnSync("vitest", ["run", "--project", "netns", ...suites], {
    stdio: "inherit",
    env: { ...process.env, ...peers },
  });
  if (status !== 0) process.exitCode = 1;
}
