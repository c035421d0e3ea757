// A whole ztunnel that asks the control plane only for what connections need.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TunnelProtocol } from "@ambit/api/gen/istio/workload_pb.ts";
import { CLIENT_IP, roundTrip, SERVER_IP, type Ztunnel } from "./lab.ts";
import { NodeLab } from "./node-lab.ts";

const COMPLETE = { scope: "access", message: "connection complete" };

let node: NodeLab;
let ztunnel: Ztunnel;

beforeEach(async () => {
  node = await NodeLab.create();
  node.lab.echo();
  node.lab.stopRedirecting("server");
  node.mesh.workload("client", [CLIENT_IP]);
  node.mesh.workload("stranger", ["10.78.0.9"], { node: "node-2" });
  ztunnel = node.ztunnel({
    XDS_ON_DEMAND: "true",
    ISTIO_META_DNS_CAPTURE: "false",
    ZTUNNEL_WORKER_THREADS: "2",
  });
  await node.enrol("client");
});
afterEach(() => node[Symbol.dispose]());

async function knownWorkloads(): Promise<string[]> {
  const dump = (await ztunnel.json("/config_dump")) as { workloads: { name: string }[] };
  return dump.workloads.map(({ name }) => name).toSorted();
}

/** A connection to the echo server; its access line. */
async function talk(): Promise<Readonly<Record<string, unknown>>> {
  const before = ztunnel.lines.length;
  const socket = await node.lab.connect();
  expect(await roundTrip(socket, "hello")).toBe("hello");
  socket.end();
  await ztunnel.line(COMPLETE);
  return ztunnel.lines.slice(before).find(({ message }) => message === COMPLETE.message)!;
}

describe("a ztunnel that asks on demand", () => {
  it("knows its own node, and what was dialed", async () => {
    node.mesh.workload("server", [SERVER_IP], {
      node: "node-2",
      tunnelProtocol: TunnelProtocol.NONE,
    });
    expect(await knownWorkloads()).toEqual(["client"]);
    expect(await talk()).toMatchObject({ "src.workload": "client", "dst.workload": "server" });
    expect(await knownWorkloads()).toEqual(["client", "server"]);
  });

  it("explains what it has to ask for first", async () => {
    node.mesh.workload("server", [SERVER_IP], { node: "node-2" });
    const query = `source=ns/client&destination=${SERVER_IP}:80`;
    expect(await ztunnel.json(`/explain?${query}`)).toMatchObject({
      path: "hbone",
      verdict: "allowed",
    });
  });

  it("passes through to what the control plane does not know", async () => {
    const line = await talk();
    expect(line).toMatchObject({ "src.workload": "client", path: "tcp" });
    expect(line).not.toHaveProperty("dst.workload");
  });
});
