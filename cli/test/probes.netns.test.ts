// Kubelet's probes under STRICT: they reach applications as they are, and are the only ones that do.

import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cgroupOfProcess, findCgroup2 } from "@ambit/common/sys/cgroup.ts";
import { Lab, type StatusPod } from "./lab.ts";

const SERVER = `require("http").createServer((request, response) => {
  console.log("called from", request.socket.remoteAddress);
  response.end("served");
}).listen(8080, "::");`;

const MESH = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: shop }
spec: { mtls: { mode: STRICT } }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop }
spec:
  nodeName: node-1
  containers:
    - name: app
      command: [${process.execPath}, -e, ${JSON.stringify(SERVER)}]
      readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 }
`;

let lab: Lab;
let pod: StatusPod;
beforeAll(async () => {
  lab = new Lab();
  await lab.up(MESH, "--nodes", "1", "--redirection", "ebpf");
  pod = (await lab.status()).pods.find(({ name }) => name === "web")!;
});
afterAll(() => lab.down());

/** Calls the pod from its node, from the cgroup of the process that probes it or from another one. */
async function call(ip: string, asKubelet: boolean): Promise<string> {
  const { pid, nodes } = await lab.status();
  const cgroup = cgroupOfProcess(findCgroup2()!, asKubelet ? pid : "self");
  const url = `http://${ip.includes(":") ? `[${ip}]` : ip}:8080/`;
  const script = 'echo 0 > "$1/cgroup.procs"; exec ip netns exec "$2" curl -gsS -m 3 "$3"';
  const args = ["-c", script, "sh", cgroup, nodes[0]!.netns, url];
  try {
    return execFileSync("sh", args, { encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    return (error as { stderr: string }).stderr;
  }
}

describe("a pod that takes mutual TLS only", () => {
  it("is ready by probes that come from the node's own address", async () => {
    expect(pod.ready).toBe(true);
    const log = await lab.must("local", "logs", "web.shop");
    expect(log).toMatch(/called from ::ffff:10\./);
    expect(log).not.toContain("169.254.7.127");
    const { stdout } = await lab.ambit("local", "status");
    expect(stdout).toMatch(/node-1 .* ebpf +sockets/);
  });

  it.each([
    ["IPv4", 0],
    ["IPv6", 1],
  ])("is served to kubelet over %s, and to no one else of the node", async (_name, index) => {
    const ip = pod.ips[index]!;
    expect(await call(ip, true)).toBe("served");
    expect(await call(ip, false)).toMatch(/curl: /);
  });
});
