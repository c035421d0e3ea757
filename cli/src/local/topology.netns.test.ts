import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { type Ip } from "@ambit/common/net/ip.ts";
import { errorCode } from "@ambit/common/process/errors.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { connectTcp } from "@ambit/common/sys/sockets.ts";
import { nodeAddress, podAddress } from "./addresses.ts";
import { fabricNetns, homeOf, netnsPath, nodeNetns, podNetns } from "./home.ts";
import { findLeftovers, removeLeftovers } from "./leftovers.ts";
import { createFabric, createNode, createPod, type PodWires, removePod } from "./topology.ts";

const home = homeOf({ AMBIT_HOME: `/tmp/ambit-topology-${process.pid}` });
const fabric = fabricNetns(home);

function wires(node: number, host: number): PodWires {
  return {
    netns: podNetns(home, "default", `pod-${node}-${host}`),
    nodeNetns: nodeNetns(home, `node-${node}`),
    node,
    link: `veth${host}`,
    address: podAddress(node, host),
  };
}

/** A port nobody listens on answers with a reset, but only when packets go both ways. */
async function reaches(netns: string, ip: string): Promise<boolean> {
  using handle = openNetns(netnsPath(netns));
  const destination = { ip: ip as Ip, port: 9 };
  const dialed = connectTcp(handle.fd, { destination, timeoutMs: 5_000 });
  return errorCode(await dialed.catch((error: unknown) => error)) === "ECONNREFUSED";
}

describe("the topology", () => {
  beforeEach(async () => {
    await createFabric(fabric, 2);
    for (const node of [1, 2]) {
      await createNode({ fabric, netns: nodeNetns(home, `node-${node}`) }, node, 2);
    }
    await Promise.all([wires(1, 2), wires(1, 3), wires(2, 2)].map(createPod));
  });

  afterEach(async () => {
    await removeLeftovers(findLeftovers(home.prefix));
    expect(findLeftovers(home.prefix)).toEqual({ netns: [], pids: [] });
  });

  it.each([
    ["another pod of the node", podAddress(1, 3)],
    ["a pod of the other node", podAddress(2, 2)],
    ["its own node", nodeAddress(1)],
    ["the other node", nodeAddress(2)],
    ["the fabric", { v4: "172.30.0.2", v6: "fd00:172:30::2" }],
  ])("lets a pod reach %s over IPv4 and IPv6", async (_, { v4, v6 }) => {
    const { netns } = wires(1, 2);
    expect([await reaches(netns, v4), await reaches(netns, v6)]).toEqual([true, true]);
  });

  it("lets a node reach the pods of both nodes", async () => {
    const node = nodeNetns(home, "node-1");
    expect(await reaches(node, podAddress(1, 2).v4)).toBe(true);
    expect(await reaches(node, podAddress(2, 2).v6)).toBe(true);
  });

  it("cuts a removed pod off and leaves the others alone", async () => {
    const removed = wires(2, 2);
    await removePod(removed);
    expect(existsSync(`/run/netns/${removed.netns}`)).toBe(false);
    expect(await reaches(wires(1, 2).netns, removed.address.v4)).toBe(false);
    expect(await reaches(wires(1, 2).netns, podAddress(1, 3).v4)).toBe(true);
  });

  it("finds the processes of a mesh by its namespaces and removes both", async () => {
    const { netns } = wires(1, 2);
    const child = spawn("ip", ["netns", "exec", netns, "sh", "-c", "echo up; sleep 600; true"]);
    await once(child.stdout, "data");
    const found = findLeftovers(home.prefix);
    expect(found.netns).toHaveLength(6);
    expect(found.pids).toContain(child.pid);
    const exited = once(child, "exit");
    await removeLeftovers(found);
    expect((await exited)[1]).toBe("SIGKILL");
    expect(findLeftovers(home.prefix)).toEqual({ netns: [], pids: [] });
  });

  it("does not take another mesh's namespaces for its own", () => {
    const other = homeOf({ AMBIT_HOME: "/run/ambit" });
    expect(home.prefix.startsWith(other.prefix)).toBe(false);
    expect(other.prefix.startsWith(home.prefix)).toBe(false);
  });
});
