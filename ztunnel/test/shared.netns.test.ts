// A whole ztunnel process in shared mode: pods come over ZDS, and both live on its node.

import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fromBinary } from "@bufbuild/protobuf";
import { ZdsHelloSchema } from "@ambit/api/gen/istio/zds_pb.ts";
import { captureAnswer, captureProbeTarget } from "@ambit/common/net/capture-probe.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { encode, FakeAgent, type Payload, SNAPSHOT } from "../src/testing/fake-agent.ts";
import {
  APP_PORT,
  CLIENT_IP,
  ended,
  Lab,
  roundTrip,
  SERVER_IP,
  untilEnd,
  type Ztunnel,
} from "./lab.ts";

const NODES = { client: "node", server: "node" };
const COMPLETE = { scope: "access", message: "connection complete" };

let lab: Lab;
let agent: FakeAgent;
let ztunnel: Ztunnel;

beforeEach(() => {
  lab = new Lab();
  agent = new FakeAgent(join(lab.folder, "zds.sock"));
  lab.echo();
});
afterEach(() => {
  agent.close();
  lab[Symbol.dispose]();
});

const addPod = (side: "client" | "server", uid = `uid-${side}`): Payload => ({
  case: "add",
  value: {
    uid,
    workloadInfo: { name: side, namespace: "default", serviceAccount: side },
  },
});

async function start(env: Record<string, string> = {}): Promise<void> {
  const before = agent.connections;
  ztunnel = lab.ztunnel("node", {
    NODE_NAME: "node",
    INPOD_UDS: join(lab.folder, "zds.sock"),
    LOCAL_XDS_PATH: lab.writeMesh(NODES),
    ...env,
  });
  await agent.connected(before + 1);
}

/** Both pods enrolled, the snapshot complete. */
async function enrol(env?: Record<string, string>): Promise<void> {
  await start(env);
  for (const side of ["client", "server"] as const) {
    expect(await agent.send(addPod(side), lab.fd(side))).toBe("");
  }
  expect(await agent.send(SNAPSHOT)).toBe("");
}

describe("two pods of one node", () => {
  it.each([
    ["local", "LOCAL", `${SERVER_IP}:${APP_PORT}`],
    ["hbone", "HBONE", `${SERVER_IP}:15008`],
  ])("talk by the path %s", async (mode, protocol, actualDst) => {
    await enrol({ SAME_NODE: mode });
    const socket = await lab.connect();
    expect(await roundTrip(socket, "hello")).toBe("hello");
    const connections = (await ztunnel.json("/connections")) as { direction: string }[];
    expect(connections.find(({ direction }) => direction === "outbound")).toMatchObject({
      protocol,
      actualDst,
    });
    socket.end();
    for (const direction of ["outbound", "inbound"]) {
      expect(await ztunnel.line({ ...COMPLETE, direction })).toMatchObject({
        "src.identity": "spiffe://cluster.local/ns/default/sa/client",
        "dst.identity": "spiffe://cluster.local/ns/default/sa/server",
      });
    }
  });

  it("go on when the agent leaves, while readiness says that it is away", async () => {
    await enrol();
    const socket = await lab.connect();
    expect(await ztunnel.http(15_021, "/healthz/ready")).toBe("ready\n");
    agent.close();
    await ztunnel.line({ message: "node agent went away" });
    expect(await ztunnel.http(15_021, "/healthz/ready")).toBe(
      "not ready, pending: workload proxy manager\n",
    );
    expect(await roundTrip(socket, "hello")).toBe("hello");
    const another = await lab.connect();
    expect(await roundTrip(another, "hello")).toBe("hello");
  });

  it("lose their connections at once when one is taken out", async () => {
    await enrol();
    const socket = await lab.connect();
    await roundTrip(socket, "hello");
    expect(await agent.send({ case: "del", value: { uid: "uid-client" } })).toBe("");
    await ended(socket);
    await expect(lab.connect()).rejects.toThrow(/ECONNREFUSED/);
    const dump = (await ztunnel.json("/config_dump")) as { certificates: { identity: string }[] };
    expect(dump.certificates.map(({ identity }) => identity)).toEqual([
      "spiffe://cluster.local/ns/default/sa/server",
    ]);
  });

  it("come back on a new connection of the agent without losing theirs", async () => {
    await enrol();
    const socket = await lab.connect();
    await roundTrip(socket, "hello");
    agent.socket!.close();
    await agent.connected(2);
    for (const side of ["client", "server"] as const) {
      expect(await agent.send(addPod(side), lab.fd(side))).toBe("");
    }
    expect(await agent.send(SNAPSHOT)).toBe("");
    expect(await roundTrip(socket, "hello")).toBe("hello");
  });
});

describe("the node agent's question whether a pod is captured", () => {
  it("is answered with the pod, without an access line and before there is a certificate", async () => {
    await enrol();
    const socket = await lab.connect("client", captureProbeTarget(4));
    expect(await untilEnd(socket)).toBe(captureAnswer("uid-client"));
    expect(ztunnel.lines.filter(({ scope }) => scope === "access")).toEqual([]);
  });

  it("is promised in the hello", async () => {
    await start();
    expect(fromBinary(ZdsHelloSchema, agent.hellos[0]!)).toMatchObject({
      answersCaptureProbes: true,
    });
  });
});

/** ztunnel's listeners are reachable from inside a pod. */
const OWN_PORTS: readonly SocketAddress[] = [CLIENT_IP, "127.0.0.1" as Ip, SERVER_IP].flatMap(
  (ip) => [15_001, 15_006, 15_008].map((port) => ({ ip, port })),
);

describe("a call of ztunnel's own ports from inside a pod", () => {
  it("is refused, never passed on to itself", async () => {
    await enrol();
    for (const address of OWN_PORTS) {
      const socket = await lab.connect("client", address);
      socket.end("not a tunnel");
      expect(await untilEnd(socket)).toBe("");
      expect(await ztunnel.json("/connections")).toEqual([]);
    }
    const lines = ztunnel.lines.filter(({ scope }) => scope === "access");
    expect(lines.length).toBeLessThanOrEqual(OWN_PORTS.length * 2);
  });
});

describe("readiness", () => {
  it("waits for the snapshot", async () => {
    await start();
    expect(await ztunnel.http(15_021, "/healthz/ready")).toBe(
      "not ready, pending: workload proxy manager\n",
    );
    await agent.send(SNAPSHOT);
    expect(await ztunnel.http(15_021, "/healthz/ready")).toBe("ready\n");
  });

  it("is lost while a pod's port is taken, and comes back when the pod is gone", async () => {
    await start({ INPOD_PORT_REUSE: "false" });
    await agent.send(SNAPSHOT);
    await agent.send(addPod("client"), lab.fd("client"));
    expect(await agent.send(addPod("client", "uid-twin"), lab.fd("client"))).toMatch(
      /^failure to start proxy for default\/client: .*EADDRINUSE/,
    );
    expect(await ztunnel.http(15_021, "/healthz/ready")).toContain("unserved pods");
    expect(await agent.send({ case: "del", value: { uid: "uid-twin" } })).toBe("");
    expect(await ztunnel.http(15_021, "/healthz/ready")).toBe("ready\n");
  });
});

describe("a broken ZDS protocol", () => {
  it("ends the process with code 1 and one sentence, without draining", async () => {
    await start();
    await agent.send(SNAPSHOT);
    agent.socket!.send(encode(SNAPSHOT));
    expect(await ztunnel.exited).toBe(1);
    expect(ztunnel.plain).toEqual(["error: the node agent broke the ZDS protocol"]);
    expect(ztunnel.lines.map(({ message }) => message)).not.toContain("draining");
  });
});
