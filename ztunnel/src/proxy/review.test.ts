import { describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { TunnelPool } from "@ambit/common/hbone/pool.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { workloadIdentity } from "../state/workload.ts";
import { testContext, testPod } from "../testing/test-context.ts";
import { Connection, type TrackedConnection } from "./connection.ts";
import { dropStaleTunnels, reviewConnections } from "./review.ts";

const exact = (value: string) => ({ matchType: { case: "exact" as const, value } });

/** A policy that concerns callers with this service account. */
const caller = (account: string) => ({
  rules: [
    { clauses: [{ matches: [{ principals: [exact(`cluster.local/ns/ns/sa/${account}`)] }] }] },
  ],
});

function setUp() {
  const mesh = new TestMesh()
    .workload("client", ["10.0.0.1"])
    .workload("web", ["10.0.0.2", "fd00::2"])
    .workload("db", ["10.0.0.3"]);
  const context = testContext({ state: mesh.state });
  const track = (more: Partial<TrackedConnection>): Connection => {
    const connection = new Connection("id");
    context.connections.track({
      connection,
      direction: "inbound",
      path: "hbone",
      workload: mesh.get("web"),
      source: { ip: "10.0.0.1" as Ip, port: 1 },
      originalDestination: { ip: "10.0.0.2" as Ip, port: 80 },
      actualDestination: { ip: "10.0.0.2" as Ip, port: 80 },
      counters: { sent: 0, received: 0 },
      ...more,
    });
    return connection;
  };
  const inbound = (from: string | undefined, to = "web"): Connection => {
    const workload = mesh.get(to);
    const [destinationIp] = workload.addresses;
    const subject = {
      sourceIp: "10.0.0.1" as Ip,
      destinationIp: destinationIp!,
      destinationPort: 80,
      ...(from !== undefined && { sourceIdentity: workloadIdentity(mesh.get(from)) }),
    };
    return track({ workload, subject, path: from === undefined ? "tcp" : "hbone" });
  };
  const outbound = (to: string): Connection => {
    const workload = mesh.get(to);
    const allowedIdentities = [spiffeId(workloadIdentity(workload))];
    const hop = { workload, ip: workload.addresses[0]!, allowedIdentities };
    return track({ direction: "outbound", workload: mesh.get("client"), hop });
  };
  return { mesh, context, inbound, outbound, review: () => reviewConnections(context) };
}

describe("a policy that changes", () => {
  it("ends what it now forbids, and nothing else", () => {
    const { mesh, inbound, outbound, review } = setUp();
    const forbidden = inbound("client");
    const others = [inbound("db"), inbound(undefined), inbound("client", "db"), outbound("web")];
    mesh.policy("no-client", {
      scope: Scope.WORKLOAD_SELECTOR,
      action: Action.DENY,
      ...caller("client"),
    });
    review();
    expect(forbidden.error).toBeUndefined();
    mesh.workload("web", ["10.0.0.2", "fd00::2"], { authorizationPolicies: ["ns/no-client"] });
    review();
    expect(forbidden.error).toMatchObject({
      code: "POLICY_CHANGED",
      flag: "DENY",
      message:
        "connection closed due to policy change: policy rejection: explicitly denied by: ns/no-client",
    });
    expect(others.map(({ error }) => error)).toEqual(others.map(() => undefined));
  });

  it.each([
    ["an ALLOW that names others comes", "comes"],
    ["the ALLOW that named it goes", "goes"],
  ])("ends it too when %s", (_, what) => {
    const { mesh, inbound, review } = setUp();
    if (what === "goes") {
      mesh.policy("client", { scope: Scope.NAMESPACE, ...caller("client") });
      mesh.policy("db", { scope: Scope.NAMESPACE, ...caller("db") });
    }
    const [fromClient, fromDb] = [inbound("client"), inbound("db")];
    review();
    expect(fromClient.error).toBeUndefined();
    if (what === "goes") mesh.removePolicy("client");
    else mesh.policy("db", { scope: Scope.NAMESPACE, ...caller("db") });
    review();
    expect(fromClient.error?.code).toBe("POLICY_CHANGED");
    expect(fromDb.error).toBeUndefined();
  });

  it("to STRICT ends plaintext only", () => {
    const { mesh, inbound, review } = setUp();
    const [plain, secured] = [inbound(undefined), inbound("client")];
    const presence = { matchType: { case: "presence" as const, value: {} } };
    mesh.policy("strict", {
      scope: Scope.NAMESPACE,
      action: Action.DENY,
      rules: [{ clauses: [{ matches: [{ notPrincipals: [presence] }] }] }],
    });
    review();
    expect(plain.error?.code).toBe("POLICY_CHANGED");
    expect(secured.error).toBeUndefined();
  });

  it("on trial ends nothing", () => {
    const { mesh, inbound, review } = setUp();
    const connection = inbound("client");
    const action = Action.DENY;
    mesh.policy("trial", { scope: Scope.GLOBAL, action, dryRun: true, ...caller("client") });
    review();
    expect(connection.error).toBeUndefined();
  });
});

describe("a workload that goes", () => {
  it("takes its inbound connections and the tunnels to it along", () => {
    const { mesh, inbound, outbound, review } = setUp();
    const gone = [inbound("client"), inbound(undefined), outbound("web")];
    const staying = [inbound("client", "db"), outbound("db")];
    mesh.remove("c//Pod/ns/web");
    review();
    for (const { error } of gone) {
      expect(error).toMatchObject({
        code: "WORKLOAD_REMOVED",
        message: "connection closed: workload ns/web was removed from the mesh",
      });
    }
    expect(staying.map(({ error }) => error)).toEqual([undefined, undefined]);
  });

  it.each([
    ["comes back under another address", ["10.0.0.9"], {}, true],
    ["becomes another service account", ["10.0.0.2"], { serviceAccount: "other" }, true],
    ["only changes its labels", ["10.0.0.2"], { canonicalRevision: "v2" }, false],
  ])("and a tunnel to it, when it %s", (_, addresses, changes, cut) => {
    const { mesh, outbound, review } = setUp();
    const connection = outbound("web");
    mesh.workload("web", addresses, changes);
    review();
    expect(connection.error !== undefined).toBe(cut);
  });
});

describe("pooled tunnels", () => {
  it("are cut when they are stale, whoever uses them", () => {
    const { mesh, context } = setUp();
    const asked: boolean[] = [];
    const key = (name: string, ip: string) => ({
      sourceIdentity: "spiffe://cluster.local/ns/ns/sa/client",
      allowedIdentities: [spiffeId(workloadIdentity(mesh.get(name)))],
      nextHop: { ip: ip as Ip, port: 15_008 },
      sourceIp: "10.0.0.1" as Ip,
      workloadUid: mesh.get(name).uid,
    });
    const keys = [key("web", "10.0.0.2"), key("db", "10.0.0.3")];
    class Watched extends TunnelPool {
      override closeWhere(matches: Parameters<TunnelPool["closeWhere"]>[0]): void {
        asked.push(...keys.map(matches));
      }
    }
    const info = { name: "client", namespace: "ns", serviceAccount: "client" };
    const dial = () => Promise.reject(new Error("never"));
    const { clock } = context;
    const pool = new Watched({ clock, dial, streamsPerConnectionMax: 1, unusedReleaseMs: 1 });
    mesh.remove("c//Pod/ns/web");
    dropStaleTunnels(context, [{ ...testPod(context, info), pool }]);
    expect(asked).toEqual([true, false]);
  });
});
