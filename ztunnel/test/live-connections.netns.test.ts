// Connections that live while the mesh changes around them: what is forbidden now ends at once, with its
// reason in the access line; everything else goes on.

import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { TunnelProtocol } from "@ambit/api/gen/istio/workload_pb.ts";
import { FakeAgent, type Payload, SNAPSHOT } from "../src/testing/fake-agent.ts";
import { ControlPlane } from "./control-plane.ts";
import { CLIENT_IP, ended, Lab, roundTrip, SERVER_IP, type Ztunnel } from "./lab.ts";

const COMPLETE = { scope: "access", message: "connection complete" };
/** From a change to the end of what it forbids. */
const END_WITHIN_MS = 1_000;

let lab: Lab;
let agent: FakeAgent;
let mesh: ControlPlane;
let ztunnel: Ztunnel;

beforeEach(async () => {
  lab = new Lab();
  agent = new FakeAgent(join(lab.folder, "zds.sock"));
  mesh = await ControlPlane.start(lab.fd("node"));
  lab.echo();
});
afterEach(() => {
  agent.close();
  mesh[Symbol.dispose]();
  lab[Symbol.dispose]();
});

const addPod = (side: "client" | "server"): Payload => ({
  case: "add",
  value: {
    uid: `uid-${side}`,
    workloadInfo: { name: side, namespace: "ns", serviceAccount: side },
  },
});

/** Both workloads known; the pods named are enrolled, the client in plain text otherwise. */
async function start(sameNode: string, ...enrolled: ("client" | "server")[]): Promise<void> {
  const tunnelProtocol = enrolled.includes("client") ? TunnelProtocol.HBONE : TunnelProtocol.NONE;
  mesh.workload("client", [CLIENT_IP], { tunnelProtocol }).workload("server", [SERVER_IP]);
  ztunnel = lab.ztunnel("node", {
    NODE_NAME: "node-1",
    INPOD_UDS: join(lab.folder, "zds.sock"),
    SAME_NODE: sameNode,
    ...mesh.env,
  });
  await agent.connected();
  for (const side of enrolled) expect(await agent.send(addPod(side), lab.fd(side))).toBe("");
  expect(await agent.send(SNAPSHOT)).toBe("");
  if (!enrolled.includes("client")) lab.stopRedirecting("client");
}

const exact = (value: string) => ({ matchType: { case: "exact" as const, value } });
const presence = { matchType: { case: "presence" as const, value: {} } };

const NO_PLAINTEXT = {
  scope: Scope.NAMESPACE,
  action: Action.DENY,
  rules: [{ clauses: [{ matches: [{ notPrincipals: [presence] }] }] }],
};
const noCaller = (account: string) => ({
  scope: Scope.NAMESPACE,
  action: Action.DENY,
  rules: [
    { clauses: [{ matches: [{ principals: [exact(`cluster.local/ns/ns/sa/${account}`)] }] }] },
  ],
});

async function endsSoon(socket: Awaited<ReturnType<Lab["connect"]>>, change: () => unknown) {
  const startMs = performance.now();
  await change();
  await ended(socket);
  expect(performance.now() - startMs).toBeLessThan(END_WITHIN_MS);
}

describe.each(["local", "hbone"])("a live connection by the path %s", (path) => {
  it("survives policies that do not concern it and ends with the one that does", async () => {
    await start(path, "client", "server");
    const socket = await lab.connect();
    await roundTrip(socket, "hello");
    mesh.policy("others", noCaller("somebody")).policy("strict", NO_PLAINTEXT);
    await untilPolicies(2);
    expect(await roundTrip(socket, "still")).toBe("still");
    await endsSoon(socket, () => mesh.policy("client", noCaller("client")));
    const line = await ztunnel.line({ ...COMPLETE, direction: "inbound" });
    expect(line).toMatchObject({
      reason: "POLICY_CHANGED",
      error: expect.stringMatching(/explicitly denied by: ns\/client$/) as string,
    });
    const told = (await ztunnel.json(`/explain?id=${String(line["id"])}`)) as { failed: object[] };
    expect(told.failed).toContainEqual(expect.objectContaining({ reason: "POLICY_CHANGED" }));
    const outbound = await ztunnel.line({ ...COMPLETE, direction: "outbound" });
    expect(outbound["id"]).toBe(line["id"]);
    const labels = 'reporter="destination",reason="POLICY_CHANGED"';
    expect(await ztunnel.metric("ambit_connection_failures_total", labels)).toBe(1);
    await expect(talk()).rejects.toThrow(/closed/);
  });

  it("ends when its destination is removed from the mesh", async () => {
    await start(path, "client", "server");
    const socket = await lab.connect();
    await roundTrip(socket, "hello");
    await endsSoon(socket, () => mesh.removeWorkload("server"));
    for (const direction of ["inbound", "outbound"]) {
      expect(await ztunnel.line({ ...COMPLETE, direction })).toMatchObject({
        reason: "WORKLOAD_REMOVED",
      });
    }
  });

  it.each(["client", "server"] as const)("ends when the %s leaves the mesh", async (side) => {
    await start(path, "client", "server");
    const socket = await lab.connect();
    await roundTrip(socket, "hello");
    await endsSoon(socket, () => agent.send({ case: "del", value: { uid: `uid-${side}` } }));
    const direction = side === "client" ? "outbound" : "inbound";
    expect(await ztunnel.line({ ...COMPLETE, direction })).toMatchObject({
      reason: "POD_REMOVED",
    });
  });
});

describe("a live connection in plain text", () => {
  it("ends when the server's mesh becomes strict", async () => {
    await start("local", "server");
    const socket = await lab.connect();
    await roundTrip(socket, "hello");
    mesh.policy("others", noCaller("client"));
    await untilPolicies(1);
    expect(await roundTrip(socket, "still")).toBe("still");
    await endsSoon(socket, () => mesh.policy("strict", NO_PLAINTEXT));
    expect(await ztunnel.line({ ...COMPLETE, direction: "inbound" })).toMatchObject({
      reason: "POLICY_CHANGED",
      path: "tcp",
    });
  });
});

describe("a pod that leaves while its connection is being made", () => {
  it("does not wait for it", async () => {
    await start("local", "client");
    lab.dropTo("server");
    const dialing = lab.connect();
    await ztunnel.untilConnections(1);
    const socket = await dialing;
    await endsSoon(socket, () => agent.send({ case: "del", value: { uid: "uid-client" } }));
    expect(await ztunnel.line({ ...COMPLETE, direction: "outbound" })).toMatchObject({
      reason: "POD_REMOVED",
    });
  });
});

async function talk(): Promise<string> {
  return roundTrip(await lab.connect(), "hello");
}

async function untilPolicies(count: number): Promise<void> {
  await ztunnel.untilJson("/config_dump", (dump) => {
    const { policies } = dump as { policies: unknown[] };
    return policies.length >= count;
  });
}
