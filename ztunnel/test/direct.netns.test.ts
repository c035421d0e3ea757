// Pods of one node whose connections go past ztunnel, with a real ztunnel and the real programs: it lets the
// first one through, sees no byte of the next, knows of them all, and ends them when they are forbidden.

import type net from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { ip } from "../src/testing/direct-lab.ts";
import { NodeCgroup } from "../src/testing/node-cgroup.ts";
import { SteeredNode } from "../src/testing/steered-node.ts";
import { bytes, serves } from "../src/state/testing-mesh.ts";
import type { ControlPlane } from "./control-plane.ts";
import { APP_PORT, CLIENT_IP, ended, type Lab, roundTrip, SERVER_IP, type Ztunnel } from "./lab.ts";
import { Load } from "./load.ts";
import { NodeLab, POD_SIDES } from "./node-lab.ts";

const COMPLETE = { scope: "access", message: "connection complete" };
/** From a change to the end of what it forbids. */
const END_WITHIN_MS = 1_000;
const VIP = { ip: ip("10.96.0.1"), port: 80 };
const POD = { ip: SERVER_IP, port: APP_PORT };

let nodeLab: NodeLab;
let lab: Lab;
let mesh: ControlPlane;
let cgroup: NodeCgroup;
let node: SteeredNode;
let ztunnel: Ztunnel;

beforeEach(async () => {
  nodeLab = await NodeLab.create({ steered: true });
  ({ lab, mesh } = nodeLab);
  for (const side of POD_SIDES) lab.stopRedirecting(side);
  cgroup = new NodeCgroup();
  node = new SteeredNode("node-1", cgroup, [
    { netns: lab.netns("client"), ip: CLIENT_IP },
    { netns: lab.netns("server"), ip: SERVER_IP },
  ]);
  // A listener belongs to the cgroup that it was made in.
  lab.echo();
});
afterEach(async () => {
  ztunnel.kill();
  await ztunnel.exited;
  node.remove();
  cgroup.remove();
  nodeLab[Symbol.dispose]();
});

function newZtunnel(sameNode: string, workers = 1): Ztunnel {
  return cgroup.startProxy(() =>
    nodeLab.ztunnel({
      BPF_FS: node.bpffs,
      SAME_NODE: sameNode,
      ZTUNNEL_WORKER_THREADS: String(workers),
    }),
  );
}

async function start(sameNode = "direct", workers = 1): Promise<void> {
  mesh
    .workload("client", [CLIENT_IP])
    .service("web", [VIP.ip])
    .workload("server", [SERVER_IP], { services: serves("web", APP_PORT) });
  ztunnel = newZtunnel(sameNode, workers);
  await nodeLab.enrol(...POD_SIDES);
  node.capture();
}

const flows = () => node.steering.direct.flows();

/** The first call goes through ztunnel; returns the second, which does not. */
async function directSocket(called = POD): Promise<net.Socket> {
  const first = await lab.connect("client", called);
  expect(await roundTrip(first, "first")).toBe("first");
  first.destroy();
  const second = await lab.connect("client", called);
  expect(await roundTrip(second, "second")).toBe("second");
  expect(flows().map(({ source }) => source.port)).toContain(second.localPort);
  return second;
}

const exact = (value: string) => ({ matchType: { case: "exact" as const, value } });
const NO_CLIENT = {
  scope: Scope.NAMESPACE,
  action: Action.DENY,
  rules: [{ clauses: [{ matches: [{ principals: [exact("cluster.local/ns/ns/sa/client")] }] }] }],
};
const waypoint = {
  waypoint: {
    destination: { case: "address" as const, value: { address: bytes("10.96.0.9") } },
    hboneMtlsPort: 15_008,
  },
};

async function untilPolicies(count: number): Promise<void> {
  await ztunnel.untilJson("/config_dump", (dump) => {
    return (dump as { policies: unknown[] }).policies.length >= count;
  });
}

describe.each([
  ["a pod's address", POD],
  ["a service", VIP],
])("calls to %s", (_, called) => {
  it("go past ztunnel after the first, and are told of as others are", async () => {
    await start();
    const socket = await directSocket(called);
    expect(socket.remoteAddress).toBe(called.ip);
    expect(socket.remotePort).toBe(called.port);
    const listed = (await ztunnel.json("/connections")) as { protocol: string }[];
    const common = {
      protocol: "DIRECT",
      originalDst: `${called.ip}:${called.port}`,
      actualDst: `${SERVER_IP}:${APP_PORT}`,
    };
    // The first may still be there: its two sides end when ztunnel comes to it.
    expect(listed.filter(({ protocol }) => protocol === "DIRECT")).toMatchObject([
      { ...common, direction: "outbound", bytesSent: 6, bytesReceived: 6 },
      { ...common, direction: "inbound", bytesSent: 6, bytesReceived: 6 },
    ]);
    socket.end();
    await ended(socket);
    const line = await ztunnel.line({ ...COMPLETE, direction: "outbound", path: "direct" });
    expect(line).toMatchObject({
      "src.identity": "spiffe://cluster.local/ns/ns/sa/client",
      "dst.identity": "spiffe://cluster.local/ns/ns/sa/server",
      bytes_sent: 6,
      bytes_recv: 6,
    });
    expect(line["dst.service"]).toBe(called === VIP ? "web.ns.svc.cluster.local" : undefined);
    await ztunnel.line({ ...COMPLETE, direction: "inbound", path: "direct", id: line["id"] });
  });
});

it("a mebibyte goes past ztunnel, whose counters do not move while it does", async () => {
  await start();
  const socket = await directSocket();
  const relayed = { ...COMPLETE, path: "local" };
  for (const direction of ["outbound", "inbound"]) await ztunnel.line({ ...relayed, direction });
  const message = Buffer.alloc(1 << 20, "x");
  await roundTrip(socket, message);
  expect(await ztunnel.metric("istio_tcp_received_bytes_total", 'reporter="source"')).toBe(
    "first".length + "second".length + message.length,
  );
  expect(ztunnel.lines.filter(({ path }) => path === "local")).toHaveLength(2);
  socket.destroy();
});

it("of many short ones each is counted, and none is left in the kernel", async () => {
  await start();
  const load = new Load(() => lab.connect("client", VIP), { fresh: 4, lasting: 2 });
  await load.more(400, 400);
  await load.stop();
  expect(load.failures).toEqual([]);
  await expect.poll(flows).toEqual([]);
  const made = load.fresh + 2;
  for (const name of ["opened", "closed"]) {
    const metric = () => ztunnel.metric(`istio_tcp_connections_${name}_total`, 'reporter="source"');
    await expect.poll(metric).toBe(made);
  }
  expect(node.steering.counters().get("DIRECT_ENDED")).toBeGreaterThan(made - 20);
});

describe("what the mesh forbids", () => {
  it("ends within a second also when it is hundreds", async () => {
    await start();
    const first = await directSocket();
    const dialing = Array.from({ length: 300 }, () => lab.connect());
    const sockets = [first, ...(await Promise.all(dialing))];
    await expect.poll(() => flows().length).toBe(sockets.length);
    const startMs = performance.now();
    mesh.policy("client", NO_CLIENT);
    await Promise.all(sockets.map(ended));
    expect(performance.now() - startMs).toBeLessThan(END_WITHIN_MS);
    await expect.poll(flows).toEqual([]);
  });

  it.each([1, 2])(
    "ends within a second, with its reason at both ends; %i workers",
    async (workers) => {
      await start("direct", workers);
      const socket = await directSocket();
      const startMs = performance.now();
      mesh.policy("client", NO_CLIENT);
      await ended(socket);
      expect(performance.now() - startMs).toBeLessThan(END_WITHIN_MS);
      for (const direction of ["inbound", "outbound"]) {
        expect(await ztunnel.line({ ...COMPLETE, direction, path: "direct" })).toMatchObject({
          reason: "POLICY_CHANGED",
          error: expect.stringMatching(/explicitly denied by: ns\/client$/) as string,
        });
      }
      await expect(refused(POD)).resolves.toBe(true);
      expect(flows()).toEqual([]);
      mesh.removePolicy("client");
      await expect.poll(() => refused(POD)).toBe(false);
    },
  );

  it("leaves alone what it does not concern", async () => {
    await start();
    const socket = await directSocket();
    mesh.policy("other", {
      ...NO_CLIENT,
      rules: [{ clauses: [{ matches: [{ destinationPorts: [1] }] }] }],
    });
    await untilPolicies(1);
    expect(await roundTrip(socket, "still")).toBe("still");
    (await directSocket()).destroy();
    socket.destroy();
  });

  it.each(["client", "server"])("ends when the %s is removed from the mesh", async (name) => {
    await start();
    const socket = await directSocket();
    mesh.removeWorkload(name);
    await ended(socket);
    expect(await ztunnel.line({ ...COMPLETE, path: "direct" })).toMatchObject({
      reason: "WORKLOAD_REMOVED",
    });
  });

  it.each(POD_SIDES)("ends when the %s's pod leaves the mesh", async (side) => {
    await start();
    const socket = await directSocket();
    await nodeLab.leave(side);
    await ended(socket);
  });
});

describe("no call goes directly", () => {
  it.each(["local", "hbone"])("where the mesh says %s", async (path) => {
    await start(path);
    for (let i = 0; i < 3; i++) expect(await refused(POD)).toBe(false);
    expect(flows()).toEqual([]);
    expect(node.steering.direct.verdictCount).toBe(0);
  });

  it("once the service has a waypoint: neither to it nor to its pod", async () => {
    await start();
    (await directSocket(VIP)).destroy();
    (await directSocket(POD)).destroy();
    mesh.service("web", [VIP.ip], waypoint);
    await expect.poll(() => node.steering.direct.verdictCount).toBe(0);
    await expect.poll(flows).toEqual([]);
    expect(await refused(VIP)).toBe(true);
    await refused(POD);
    expect(flows()).toEqual([]);
  });

  it("and explain says which it is, and why", async () => {
    await start();
    const ask = async () =>
      (await ztunnel.json("/explain?source=ns/client&destination=web.ns.svc.cluster.local:80")) as {
        path: string;
        steps: { question: string; answer: string }[];
      };
    await expect.poll(async () => (await ask()).path).toBe("direct");
    mesh.service("web", [VIP.ip], { loadBalancing: { mode: 1 } });
    mesh.workload("server", [SERVER_IP], {
      services: serves("web", APP_PORT),
      ...waypoint,
    });
    await expect.poll(async () => (await ask()).path).toBe("local");
    expect((await ask()).steps).toContainEqual({
      question: "may it go past ztunnel",
      answer: "no: ns/server has a waypoint",
    });
  });
});

describe("another ztunnel", () => {
  it("takes over after a kill: knows what lives, and ends it when it is forbidden", async () => {
    await start();
    const socket = await directSocket();
    ztunnel.kill();
    await ztunnel.exited;
    expect(await roundTrip(socket, "alone")).toBe("alone");
    ztunnel = newZtunnel("direct");
    await nodeLab.enrol(...POD_SIDES);
    await ztunnel.untilJson("/connections", (list) =>
      (list as { protocol: string }[]).some(({ protocol }) => protocol === "DIRECT"),
    );
    expect(node.steering.direct.verdictCount).toBe(0);
    mesh.policy("client", NO_CLIENT);
    await ended(socket);
  });
});

/** Whether a call is not served. */
async function refused(called: typeof POD): Promise<boolean> {
  try {
    const socket = await lab.connect("client", called);
    try {
      return (await roundTrip(socket, "hello")) !== "hello";
    } finally {
      socket.destroy();
    }
  } catch {
    return true;
  }
}
