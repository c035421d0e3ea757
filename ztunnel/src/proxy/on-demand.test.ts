import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "@ambit/common/process/clock.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { parseSocketAddress } from "@ambit/common/net/socket-address.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { newStore, NODE_ID, TestServer } from "@ambit/common/testing/xds-harness.ts";
import { DeltaClient } from "@ambit/common/xds/delta-client.ts";
import type { ResourceStore } from "@ambit/common/xds/resource-store.ts";
import { TYPE_ADDRESS } from "@ambit/common/xds/resource-type.ts";
import { resolveInboundTarget } from "../state/inbound-target.ts";
import { MeshState, type ResourceUpsert } from "../state/mesh-state.ts";
import { resolveOutbound } from "../state/outbound-route.ts";
import { bytes, serves, serviceResource, workloadResource } from "../state/testing-mesh.ts";
import type { WorkloadUid } from "../state/workload.ts";
import { addressOnDemand } from "../testing/on-demand-resource.ts";
import { DEMAND_WAIT_MS, DemandView } from "../worker/demand-view.ts";
import { decideOnDemand, ROUNDS_MAX } from "./on-demand.ts";

let store: ResourceStore;
let server: TestServer;
let client: DeltaClient;
let state: MeshState;
let demand: DemandView;
let asked: string[];
let clock: FakeClock;

beforeEach(async () => {
  store = newStore();
  put(workloadResource("client", ["10.0.0.1"], { node: "node-a" }));
  server = await TestServer.start(store);
  state = new MeshState();
  clock = new FakeClock();
  asked = [];
  demand = new DemandView(clock, (key) => {
    asked.push(key);
    void client.demand(TYPE_ADDRESS, key).then((result) => demand.update(key, result));
  });
  const known = Promise.withResolvers<void>();
  client = new DeltaClient({
    target: () => Promise.resolve(server.target),
    metadata: () => Promise.resolve({}),
    node: { id: NODE_ID, metadata: { NODE_NAME: "node-a" } },
    types: [
      {
        typeUrl: TYPE_ADDRESS,
        mode: "on-demand",
        onUpdate: async (update) => {
          const rejections = state.applyAddresses(update);
          known.resolve();
          return rejections;
        },
      },
    ],
    clock: systemClock,
    log: memoryLog().log.scope("xds"),
  });
  await known.promise;
});
afterEach(() => {
  client.close();
  server.kill();
});

function put(...resources: ResourceUpsert[]): void {
  store.apply({ typeUrl: TYPE_ADDRESS, upserts: resources.map(addressOnDemand), removed: [] });
}

const workload = (name: string) => state.workload(`c//Pod/ns/${name}` as WorkloadUid);

function route(to: string) {
  const query = {
    source: workload("client")!,
    destination: parseSocketAddress(to)!,
    random: () => 0,
  };
  return decideOnDemand(demand, (missed) => resolveOutbound(state, { ...query, missed }));
}

const byHostname = (hostname: string) => ({
  destination: { case: "hostname" as const, value: { namespace: "ns", hostname } },
  hboneMtlsPort: 80,
});
const byAddress = (ip: string) => ({
  destination: { case: "address" as const, value: { address: bytes(ip) } },
  hboneMtlsPort: 15_008,
});

describe("an outbound connection, where state comes on demand,", () => {
  it("knows the workloads of its own node without asking", () => {
    expect(workload("client")?.name).toBe("client");
    expect(asked).toEqual([]);
  });

  it("asks for the workload at an address, and for nothing else", async () => {
    put(workloadResource("a", ["10.0.0.2"]), workloadResource("b", ["10.0.0.3"]));
    expect(await route("10.0.0.2:80")).toMatchObject({ kind: "hbone", authority: "10.0.0.2:80" });
    expect(asked).toEqual(["/10.0.0.2"]);
    expect(workload("b")).toBeUndefined();
  });

  it("passes through what the control plane does not know, asking it once", async () => {
    expect(await route("192.0.2.1:443")).toEqual({ kind: "passthrough" });
    expect(await route("192.0.2.1:443")).toEqual({ kind: "passthrough" });
    expect(server.observer.counts["removed"]).toBe(1);
  });

  it("is told later of what did not exist when it asked", async () => {
    await route("10.0.0.2:80");
    const applied = new Promise<void>((resolve) => void state.onChange(resolve));
    put(workloadResource("a", ["10.0.0.2"]));
    await applied;
    expect(await route("10.0.0.2:80")).toMatchObject({ kind: "hbone" });
  });

  it("gets a service with its endpoints, its waypoint with its own", async () => {
    put(
      serviceResource("web", ["10.96.0.1"], { waypoint: byHostname("gate.ns.svc.cluster.local") }),
      serviceResource("gate", ["10.96.0.2"]),
      workloadResource("gate", ["10.0.0.8"], { services: serves("gate") }),
    );
    expect(await route("10.96.0.1:80")).toMatchObject({
      viaWaypoint: true,
      nextHop: { ip: "10.0.0.8", port: 8080 },
    });
    expect(asked).toEqual(["/10.96.0.1", "ns/gate.ns.svc.cluster.local"]);
  });

  it("gets the gateway of another network", async () => {
    put(
      serviceResource("web", ["10.96.0.1"]),
      workloadResource("far", [], {
        network: "far",
        services: serves("web"),
        networkGateway: byAddress("10.0.0.9"),
      }),
      workloadResource("gate", ["10.0.0.9"]),
    );
    expect(await route("10.96.0.1:80")).toMatchObject({
      kind: "double-hbone",
      outer: { nextHop: { ip: "10.0.0.9" } },
    });
  });

  it("is refused, not passed through, when the waypoint does not exist", async () => {
    put(workloadResource("a", ["10.0.0.2"], { waypoint: byAddress("10.0.0.8") }));
    expect(await route("10.0.0.2:80")).toMatchObject({ code: "UNKNOWN_WAYPOINT" });
  });

  it("is refused, not passed through, when the control plane does not answer", async () => {
    server.kill();
    const refused = expect(route("10.0.0.2:80")).rejects.toMatchObject({ code: "XDS_UNANSWERED" });
    await clock.advance(DEMAND_WAIT_MS);
    await refused;
  });

  it("that waits when the connection breaks goes on with the next one", async () => {
    const { port } = server.grpc;
    server.kill();
    const waiting = route("10.0.0.2:80");
    put(workloadResource("a", ["10.0.0.2"]));
    server = await TestServer.start(store, { port });
    expect(await waiting).toMatchObject({ kind: "hbone" });
  });
});

describe("an inbound tunnel, where state comes on demand,", () => {
  it("asks for what is behind the waypoint that the pod is", async () => {
    const gate = byHostname("gate.ns.svc.cluster.local");
    put(
      serviceResource("web", ["10.96.0.1"], { waypoint: gate }),
      serviceResource("gate", ["10.96.0.2"]),
      workloadResource("client", ["10.0.0.1"], { node: "node-a", services: serves("gate") }),
    );
    const target = await decideOnDemand(demand, (missed) =>
      resolveInboundTarget(state, {
        authority: { kind: "address", ip: parseIp("10.96.0.1")!, port: 80 },
        localIp: parseIp("10.0.0.1")!,
        workload: workload("client")!,
        ownPorts: new Set(),
        missed,
      }),
    );
    expect(target).toMatchObject({ ok: true, port: 80 });
  });
});

describe("a decision", () => {
  it("that always lacks something else ends", async () => {
    let next = 0;
    const deciding = decideOnDemand(demand, (missed) => missed(`ns/n${next++}`));
    await expect(deciding).rejects.toThrow(/without end/);
    expect(asked.length).toBe(ROUNDS_MAX);
  });
});
