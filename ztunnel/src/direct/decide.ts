// Deciding whether a pod's connections to an address may go past ztunnel: only where ztunnel would relay
// every one of them itself, on this node, without a waypoint, to whichever endpoint it picks. The answer is
// made by the same look-ups and the same policies that a connection meets.

import { evaluate, refusalText } from "@ambit/common/policy/evaluate.ts";
import { type Ip, ipFamily } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { BACKENDS_MAX } from "@ambit/common/sys/bpf-direct.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { sameNodePath } from "../proxy/same-node.ts";
import { type ChosenEndpoint, endpointCandidates } from "../state/endpoint-choice.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { Service } from "../state/service.ts";
import type { StoredService } from "../state/service-store.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";

/** A pod whose connections the kernel's programs see. */
export interface DirectPod {
  readonly pod: Pod;
  /** Its network namespace's. */
  readonly cookie: bigint;
  readonly slot: number;
}

export interface DirectCall {
  readonly source: Workload;
  /** All addresses that the source may use: policies may tell them apart. */
  readonly sourceIps: readonly Ip[];
  /** As the application writes it. */
  readonly called: SocketAddress;
  /** The pod of a workload, when its connections are steered here. */
  podOf(workload: Workload): DirectPod | undefined;
}

export interface DirectTarget {
  readonly pod: DirectPod;
  readonly workload: Workload;
  readonly to: SocketAddress;
  readonly weight: number;
}

export type DirectDecision =
  | { readonly direct: true; readonly targets: readonly DirectTarget[] }
  | { readonly direct: false; readonly why: string };

/** Sums of weights have 32 bits. */
const WEIGHT_MAX = 2 ** 31;

export function decideDirect(context: ProxyContext, call: DirectCall): DirectDecision {
  const endpoints = endpointsOf(context.state, call);
  if (typeof endpoints === "string") return { direct: false, why: endpoints };
  const targets: DirectTarget[] = [];
  for (const endpoint of endpoints) {
    const target = targetOf(context, call, endpoint);
    if (typeof target === "string") return { direct: false, why: target };
    if (target.weight > 0) targets.push(target);
  }
  const why = countObjection(targets);
  return why === undefined ? { direct: true, targets } : { direct: false, why };
}

/** All that the call may lead to, or why there is no telling. */
function endpointsOf(state: MeshState, call: DirectCall): readonly ChosenEndpoint[] | string {
  const { source, called } = call;
  const address = { network: source.network, ip: called.ip };
  const dialed = state.findAddress(address, source.namespace);
  const stored = state.services.byAddress(address, source.namespace);
  if (stored !== undefined) return endpointsOfService(stored, call);
  if (dialed?.kind !== "workload") return "the mesh does not know the address";
  return [{ workload: dialed.workload, port: called.port, ip: called.ip }];
}

function endpointsOfService(
  stored: StoredService,
  { source, called }: DirectCall,
): readonly ChosenEndpoint[] | string {
  const { service } = stored;
  if (hasWaypoint(service)) return `service ${service.hostname} has a waypoint`;
  if (service.loadBalancer.mode === "passthrough") {
    return `service ${service.hostname} passes through to the address`;
  }
  return endpointCandidates(stored, {
    source,
    servicePort: called.port,
    family: ipFamily(called.ip),
  });
}

function targetOf(
  context: ProxyContext,
  call: DirectCall,
  { workload, ip, port }: ChosenEndpoint,
): DirectTarget | string {
  const name = `${workload.namespace}/${workload.name}`;
  if (workload.protocol !== "HBONE") return `${name} is not in the mesh`;
  const path = sameNodePath(context.config.sameNode, call.source, workload);
  if (path !== "direct") return `${name} and its client do not both want direct connections`;
  const pod = call.podOf(workload);
  if (pod === undefined || ip === undefined) return `${name} is not a pod that is steered here`;
  if (ipFamily(ip) !== ipFamily(call.called.ip)) return `${name} has another address family`;
  if (call.source.uid === workload.uid) return `${name} calls itself`;
  if (pod.pod.ownPorts.has(port)) return `port ${port} of ${name} is ztunnel's own`;
  const why =
    waypointObjection(context.state, workload) ??
    identityObjection(context, call.source) ??
    identityObjection(context, workload) ??
    policyObjection(context, call, workload, { ip, port });
  return why ?? { pod, workload, to: { ip, port }, weight: workload.capacity };
}

/** Calls by the pod's own address go to its waypoint; and what its services' waypoints enforce must hold. */
function waypointObjection(state: MeshState, workload: Workload): string | undefined {
  if (workload.waypoint !== undefined)
    return `${workload.namespace}/${workload.name} has a waypoint`;
  for (const key of workload.services.keys()) {
    const service = state.services.byKey(key)?.service;
    if (service === undefined) return `nothing is known of service ${key}`;
    if (hasWaypoint(service)) {
      return `service ${service.hostname} of ${workload.namespace}/${workload.name} has a waypoint`;
    }
  }
  return undefined;
}

function hasWaypoint({ waypoint, weightedWaypoints }: Service): boolean {
  return waypoint !== undefined || weightedWaypoints.length > 0;
}

/** Without TLS the identity still must hold: its certificate is there, valid and not taken back. */
function identityObjection(
  { certificates, revocation }: ProxyContext,
  workload: Workload,
): string | undefined {
  const id = spiffeId(workloadIdentity(workload));
  const certificate = certificates.current(id);
  if (certificate === undefined) return `there is no valid certificate of ${id}`;
  const objection = revocation?.objectionToOwn(certificate);
  return objection && `the certificate of ${id}: ${objection}`;
}

/** What the destination's policies have against it, from any address that the source may use. */
export function policyObjection(
  { state }: Pick<ProxyContext, "state">,
  { source, sourceIps }: Pick<DirectCall, "source" | "sourceIps">,
  workload: Workload,
  { ip, port }: SocketAddress,
): string | undefined {
  const policies = state.policiesFor(workload);
  const possible = sourceIps.filter((sourceIp) => ipFamily(sourceIp) === ipFamily(ip));
  if (possible.length === 0)
    return `${source.namespace}/${source.name} has no address to call from`;
  for (const sourceIp of possible) {
    const decision = evaluate(policies, {
      sourceIp,
      destinationIp: ip,
      destinationPort: port,
      sourceIdentity: workloadIdentity(source),
    });
    if (!decision.allowed) return refusalText(decision);
  }
  return undefined;
}

function countObjection(targets: readonly DirectTarget[]): string | undefined {
  if (targets.length === 0) return "there is no endpoint";
  if (targets.length > BACKENDS_MAX) {
    return `there are ${targets.length} endpoints, more than ${BACKENDS_MAX}`;
  }
  const total = targets.reduce((sum, { weight }) => sum + weight, 0);
  return total > WEIGHT_MAX ? "its endpoints' weights are too large" : undefined;
}
