// Whatever comes and goes: the state is what it would be if it were built anew from what is there, and no
// connection goes around a waypoint.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { TunnelProtocol, WorkloadStatus } from "@ambit/api/gen/istio/workload_pb.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { dumpState } from "./dump.ts";
import { MeshState, type ResourceUpsert } from "./mesh-state.ts";
import { resolveOutbound } from "./outbound-route.ts";
import { bytes, policyResource, serviceResource, workloadResource } from "./testing-mesh.ts";
import type { Workload, WorkloadUid } from "./workload.ts";

const PODS = ["a", "b", "c", "d"];
const SERVICES = ["one", "two", "three"];
const NAMESPACES = ["ns", "other"];
const IPS = ["10.0.0.1", "10.0.0.2", "fd00::1"];
const HOSTS = SERVICES.map((name) => `${name}.example`);

const subset = <T>(items: readonly T[]) => fc.subarray([...items]);
const address = (ip: string, hboneMtlsPort = 80) => ({
  destination: { case: "address" as const, value: { address: bytes(ip) } },
  hboneMtlsPort,
});
const waypoint = fc.constantFrom(address("10.0.0.1"), address("10.96.0.1"), address("10.9.9.9"), {
  destination: {
    case: "hostname" as const,
    value: { namespace: "ns", hostname: "one.example" },
  },
  hboneMtlsPort: 80,
});
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const workload = fc
  .record({
    name: fc.constantFrom(...PODS),
    ips: subset(IPS),
    services: subset(NAMESPACES.flatMap((ns) => HOSTS.map((host) => `${ns}/${host}`))),
    node: fc.constantFrom("node-1", "node-2"),
    network: fc.constantFrom("", "far"),
    status: fc.constantFrom(WorkloadStatus.HEALTHY, WorkloadStatus.UNHEALTHY),
    tunnelProtocol: fc.constantFrom(TunnelProtocol.HBONE, TunnelProtocol.NONE),
    hostname: fc.constantFrom("", "a.example"),
    waypoint: maybe(waypoint),
    policies: subset(["ns/p", "other/q"]),
  })
  .map(({ name, ips, services, waypoint: through, policies, ...rest }) =>
    workloadResource(name, ips, {
      ...rest,
      authorizationPolicies: policies,
      services: Object.fromEntries(
        services.map((key) => [key, { ports: [{ servicePort: 80, targetPort: 8080 }] }]),
      ),
      ...(through && { waypoint: through }),
    }),
  );

/** Two services of one namespace never share an address: the later would take it for good. */
const service = fc
  .record({
    index: fc.nat(SERVICES.length - 1),
    namespace: fc.constantFrom(...NAMESPACES),
    hasVip: fc.boolean(),
    block: fc.boolean(),
    canonical: fc.boolean(),
    visibility: fc.constantFrom(0, 1),
    waypoint: maybe(waypoint),
  })
  .map(({ index, hasVip, block, waypoint: through, ...rest }) =>
    serviceResource(SERVICES[index]!, [], {
      ...rest,
      hostname: HOSTS[index]!,
      addresses: [
        ...(hasVip ? [{ address: bytes(`10.96.0.${index + 1}`) }] : []),
        ...(block ? [{ address: bytes(`10.96.0.${16 * index}`), length: 28 }] : []),
      ],
      ...(through && { waypoint: through }),
    }),
  );

const policy = fc
  .record({
    name: fc.constantFrom("p", "q"),
    namespace: fc.constantFrom(...NAMESPACES),
    scope: fc.constantFrom(Scope.GLOBAL, Scope.NAMESPACE, Scope.WORKLOAD_SELECTOR),
  })
  .map(({ name, ...changes }) => policyResource(name, changes));

type Step =
  | { readonly kind: "address" | "policy"; readonly put: ResourceUpsert }
  | { readonly kind: "address" | "policy"; readonly remove: string };

const NAMES = [
  ...PODS.map((name) => `c//Pod/ns/${name}`),
  ...NAMESPACES.flatMap((ns) => HOSTS.map((host) => `${ns}/${host}`)),
];
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: workload.map((put) => ({ kind: "address" as const, put })) },
  { weight: 3, arbitrary: service.map((put) => ({ kind: "address" as const, put })) },
  { weight: 1, arbitrary: policy.map((put) => ({ kind: "policy" as const, put })) },
  {
    weight: 3,
    arbitrary: fc.constantFrom(...NAMES).map((remove) => ({ kind: "address" as const, remove })),
  },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom("ns/p", "ns/q", "other/p")
      .map((remove) => ({ kind: "policy" as const, remove })),
  },
);
const steps = fc.array(step, { maxLength: 40 });

function apply(state: MeshState, one: Step): void {
  const update =
    "put" in one ? { upserts: [one.put], removed: [] } : { upserts: [], removed: [one.remove] };
  const rejected =
    one.kind === "address" ? state.applyAddresses(update) : state.applyAuthorizations(update);
  expect(rejected).toEqual([]);
}

/** What is there at the end, in the order in which it last came. */
function remaining(all: readonly Step[]): Step[] {
  const last = new Map<string, Step>();
  for (const one of all) {
    const name = "put" in one ? one.put.name : one.remove;
    last.delete(`${one.kind} ${name}`);
    if ("put" in one) last.set(`${one.kind} ${name}`, one);
  }
  return [...last.values()];
}

/** Everything that look-ups answer. */
function answers(state: MeshState) {
  const ips = [...IPS, "10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.20"];
  const clients = [...NAMESPACES, undefined];
  const dump = dumpState(state);
  return {
    dump: {
      ...dump,
      workloads: sorted(dump.workloads),
      policies: sorted(dump.policies),
      services: sorted(dump.services).map((one) => ({
        ...one,
        endpoints: sorted(endpointsOf(one)),
      })),
      stagedServices: undefined,
    },
    workloads: ["", "far"].flatMap((network) =>
      ips.map((ip) => state.workloadByAddress({ network, ip: parseIp(ip)! })?.uid),
    ),
    byAddress: clients.flatMap((client) =>
      ips.map((ip) => state.services.byAddress({ network: "", ip: parseIp(ip)! }, client)?.service),
    ),
    byHostname: clients.flatMap((client) =>
      HOSTS.map((host) => state.services.byHostname(host, client)?.service),
    ),
    ofPods: PODS.flatMap((name) =>
      ["node-1", "node-2", undefined].map(
        (node) => state.workloadOfPod({ name, namespace: "ns", serviceAccount: name }, node)?.uid,
      ),
    ),
    policies: PODS.map((name) => {
      const known = state.workload(`c//Pod/ns/${name}` as WorkloadUid);
      return (
        known && sorted(state.policiesFor(known).map(({ namespace, name: p }) => [namespace, p]))
      );
    }),
  };
}

function sorted<T>(items: readonly T[]): T[] {
  return items.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

function endpointsOf(one: Record<string, unknown>): unknown[] {
  return Object.values(one["endpoints"] as Record<string, unknown>);
}

describe("the mesh state", () => {
  it("is what it would be if it were built anew", () => {
    fc.assert(
      fc.property(steps, (all) => {
        const [grown, built] = [new MeshState(), new MeshState()];
        for (const one of all) apply(grown, one);
        for (const one of remaining(all)) apply(built, one);
        // Unhealthy endpoints wait for a service that is to come, but not for one that went.
        expect(answers(grown)).toEqual(answers(built));
      }),
      { numRuns: 300 },
    );
  });

  it("is empty when everything has gone", () => {
    fc.assert(
      fc.property(steps, (all) => {
        const state = new MeshState();
        for (const one of all) apply(state, one);
        for (const remove of NAMES) apply(state, { kind: "address", remove });
        for (const { name, namespace } of state.policies) {
          apply(state, { kind: "policy", remove: `${namespace}/${name}` });
        }
        expect(answers(state)).toEqual(answers(new MeshState()));
        expect([...state.services.stagedKeys]).toEqual([]);
      }),
    );
  });
});

describe("an outbound connection, whatever the mesh is,", () => {
  const destinations = fc.constantFrom(...IPS, "10.96.0.1", "10.96.0.2", "10.96.0.20", "192.0.2.1");
  const source = workloadResource("client", ["10.0.0.77"]);

  it("never goes around a waypoint, and is only tunnelled to whom it names", () => {
    fc.assert(
      fc.property(steps, destinations, fc.double({ min: 0, max: 0.999 }), (all, to, random) => {
        const state = new MeshState();
        for (const one of all) apply(state, one);
        apply(state, { kind: "address", put: source });
        const ip = parseIp(to)!;
        const route = resolveOutbound(state, {
          source: state.workload(source.name as WorkloadUid)!,
          destination: { ip, port: 80 },
          random: () => random,
        });
        const dialed = state.findAddress({ network: "", ip }, "ns");
        const service = state.services.byAddress({ network: "", ip }, "ns");
        const through =
          dialed?.kind === "service" ? dialed.found.service.waypoint : dialed?.workload.waypoint;
        // An address that is a workload's and a service's is the service's, whose endpoint is chosen.
        const isAsked = dialed?.kind === "service" || service === undefined;
        if (through !== undefined && isAsked) {
          expect(["hbone", "named", "double-hbone", "refused"]).toContain(route.kind);
          if (route.kind === "hbone") expect(route.viaWaypoint).toBe(true);
        }
        if (route.kind === "hbone")
          expect(route.allowedIdentities).toContain(idOf(route.destination));
        if (route.kind === "tcp") expect(route.destination.protocol).toBe("NONE");
        if (route.kind === "passthrough") expect(service ?? dialed).toBeUndefined();
      }),
      { numRuns: 500 },
    );
  });
});

function idOf({ trustDomain, namespace, serviceAccount }: Workload): string {
  return `spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
}
