// Connections that live while the mesh changes around them: what is forbidden now ends at once, with its
// reason in the access line; everything else goes on.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { TunnelProtocol } from "@ambit/api/gen/istio/workload_pb.ts";
import { CLIENT_IP, ended, type Lab, roundTrip, SERVER_IP, type Ztunnel } from "./lab.ts";
import { NodeLab, POD_SIDES, type PodSide } from "./node-lab.ts";

const COMPLETE = { scope: "access", message: "connection complete" };
/** From a change to the end of what it forbids. */
const END_WITHIN_MS = 1_000;

let node: NodeLab;
let ztunnel: Ztunnel;

beforeEach(async () => {
  node = await NodeLab.create();
  node.lab.echo();
});
afterEach(() => node[Symbol.dispose]());

/** Both workloads known; the pods named are enrolled, the client in plain text otherwise. */
async function start(sameNode: string, ...enrolled: readonly PodSide[]): Promise<void> {
  const tunnelProtocol = enrolled.includes("client") ? TunnelProtocol.HBONE : TunnelProtocol.NONE;
  node.mesh.workload("client", [CLIENT_IP], { tunnelProtocol }).workload("server", [SERVER_IP]);
  ztunnel = node.ztunnel({ SAME_NODE: sameNode });
  await node.enrol(...enrolled);
  if (!enrolled.includes("client")) node.lab.stopRedirecting("client");
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
    await start(path, ...POD_SIDES);
    const socket = await node.lab.connect();
    await roundTrip(socket, "hello");
    node.mesh.policy("others", noCaller("somebody")).policy("strict", NO_PLAINTEXT);
    await untilPolicies(2);
    expect(await roundTrip(socket, "still")).toBe("still");
    await endsSoon(socket, () => node.mesh.policy("client", noCaller("client")));
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
    await start(path, ...POD_SIDES);
    const socket = await node.lab.connect();
    await roundTrip(socket, "hello");
    await endsSoon(socket, () => node.mesh.removeWorkload("server"));
    for (const direction of ["inbound", "outbound"]) {
      expect(await ztunnel.line({ ...COMPLETE, direction })).toMatchObject({
        reason: "WORKLOAD_REMOVED",
      });
    }
  });

  it.each(POD_SIDES)("ends when the %s leaves the mesh", async (side) => {
    await start(path, ...POD_SIDES);
    const socket = await node.lab.connect();
    await roundTrip(socket, "hello");
    await endsSoon(socket, () => node.leave(side));
    const direction = side === "client" ? "outbound" : "inbound";
    expect(await ztunnel.line({ ...COMPLETE, direction })).toMatchObject({
      reason: "POD_REMOVED",
    });
  });
});

describe("a live connection in plain text", () => {
  it("ends when the server's mesh becomes strict", async () => {
    await start("local", "server");
    const socket = await node.lab.connect();
    await roundTrip(socket, "hello");
    node.mesh.policy("others", noCaller("client"));
    await untilPolicies(1);
    expect(await roundTrip(socket, "still")).toBe("still");
    await endsSoon(socket, () => node.mesh.policy("strict", NO_PLAINTEXT));
    expect(await ztunnel.line({ ...COMPLETE, direction: "inbound" })).toMatchObject({
      reason: "POLICY_CHANGED",
      path: "tcp",
    });
  });
});

describe("a pod that leaves while its connection is being made", () => {
  it("does not wait for it", async () => {
    await start("local", "client");
    node.lab.dropTo("server");
    const dialing = node.lab.connect();
    await ztunnel.untilConnections(1);
    const socket = await dialing;
    await endsSoon(socket, () => node.leave("client"));
    expect(await ztunnel.line({ ...COMPLETE, direction: "outbound" })).toMatchObject({
      reason: "POD_REMOVED",
    });
  });
});

async function talk(): Promise<string> {
  return roundTrip(await node.lab.connect(), "hello");
}

async function untilPolicies(count: number): Promise<void> {
  await ztunnel.untilJson("/config_dump", (dump) => {
    const { policies } = dump as { policies: unknown[] };
    return policies.length >= count;
  });
}
