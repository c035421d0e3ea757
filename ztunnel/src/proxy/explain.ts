// Why a connection would go where it goes and be allowed or not: the proxy's own decisions, with a
// recorder. Nothing is decided here a second time.

import {
  type DecisionReason,
  evaluate,
  explainPolicies,
  type PolicyTrial,
  refusalText,
} from "@ambit/common/policy/evaluate.ts";
import {
  formatSocketAddress,
  splitHostPort,
  type SocketAddress,
} from "@ambit/common/net/socket-address.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import { lookupSettings, resolveLocally } from "../dns/resolve.ts";
import {
  type DecisionStep,
  type OutboundRoute,
  resolveOutbound,
  TRANSPORT_QUESTION,
} from "../state/outbound-route.ts";
import type { Missed } from "../state/mesh-state.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import type { ProxyContext } from "./context.ts";
import type { ProxyErrorCode } from "./proxy-error.ts";
import { sameNodePath } from "./same-node.ts";

export interface Explanation {
  readonly source: { readonly workload: string; readonly identity: string };
  readonly destination: string;
  readonly steps: readonly DecisionStep[];
  readonly path: "direct" | "local" | "hbone" | "tcp" | "passthrough" | "double-hbone" | "none";
  readonly verdict: "allowed" | "denied" | "unreachable";
  readonly reason: string;
  /** What the access line would give as `reason`; absent when the connection would be made. */
  readonly code?: ProxyErrorCode;
  readonly decidedBy?: string;
  readonly policies: readonly PolicyTrial[];
}

/** `source` is namespace/pod; `destination` is host:port. Throws an Error that says what is unknown. */
export function explain(
  context: ProxyContext,
  sourceText: string,
  destinationText: string,
  missed?: Missed,
): Explanation {
  const source = findSource(context, sourceText);
  const steps: DecisionStep[] = [];
  const captured = source.protocol === "HBONE";
  if (!captured) {
    steps.push({
      question: "is the source in the mesh",
      answer: "no: its connections leave as plain TCP",
    });
  }
  const destination = findDestination(context, source, destinationText, steps);
  const route = resolveOutbound(context.state, {
    source,
    destination,
    random: context.random,
    missed,
    record: (step) => {
      if (captured || step.question !== TRANSPORT_QUESTION) steps.push(step);
    },
  });
  const base = {
    source: {
      workload: `${source.namespace}/${source.name}`,
      identity: spiffeId(workloadIdentity(source)),
    },
    destination: formatSocketAddress(destination),
    steps,
  };
  if (route.kind === "refused") {
    const { code, reason } = route;
    return { ...base, path: "none", verdict: "unreachable", reason, code, policies: [] };
  }
  return { ...base, ...explainArrival(context, { source, destination, route, steps }) };
}

function findSource({ state }: ProxyContext, text: string): Workload {
  for (const workload of state.workloads) {
    if (`${workload.namespace}/${workload.name}` === text) return workload;
  }
  throw new Error(`no workload ${text} is known here`);
}

function findDestination(
  { state, config, random }: ProxyContext,
  source: Workload,
  text: string,
  steps: DecisionStep[],
): SocketAddress {
  const parts = splitHostPort(text);
  if (parts === undefined) throw new Error(`"${text}" is not host:port`);
  const ip = parseIp(parts.host);
  if (ip !== undefined) return { ip, port: parts.port };
  const [namespace, pod] = parts.host.split("/");
  const byName = [...state.workloads].find(
    (workload) => workload.namespace === namespace && workload.name === pod,
  );
  if (byName?.addresses[0] !== undefined) return { ip: byName.addresses[0], port: parts.port };
  const name = parts.host.toLowerCase();
  const settings = lookupSettings(config, source, random);
  const [address] = ([4, 6] as const).flatMap(
    (family) => resolveLocally(state, { ...settings, name, family })?.addresses ?? [],
  );
  if (address === undefined) throw new Error(`the mesh knows no address for "${parts.host}"`);
  steps.push({ question: `what does ${parts.host} resolve to`, answer: address });
  return { ip: address, port: parts.port };
}

interface ExplainedJourney {
  readonly source: Workload;
  /** As the application dials it. */
  readonly destination: SocketAddress;
  readonly route: Exclude<OutboundRoute, { kind: "refused" }>;
  readonly steps: DecisionStep[];
}

type Arrival = Omit<Explanation, "source" | "destination" | "steps">;

/** What the destination's policies say of the connection when it arrives. */
function explainArrival(context: ProxyContext, journey: ExplainedJourney): Arrival {
  const { state } = context;
  const { source, route, steps } = journey;
  const { destination } = route;
  const captured = source.protocol === "HBONE";
  const path = captured ? pathOf(context, journey) : "tcp";
  steps.push({ question: "which path do the bytes take", answer: PATHS[path] });
  const enforced = destination !== undefined && destination.protocol === "HBONE";
  const target = "target" in route ? route.target : undefined;
  if (!enforced || target === undefined || ("viaWaypoint" in route && route.viaWaypoint)) {
    const reason = enforced
      ? "decided at the next hop"
      : "the destination is not in the mesh: no policy is enforced there";
    return { path, verdict: "allowed", reason, policies: [] };
  }
  const subject = {
    sourceIp: source.addresses[0] ?? target.ip,
    destinationIp: target.ip,
    destinationPort: target.port,
    ...(captured && { sourceIdentity: workloadIdentity(source) }),
  };
  const policies = state.policiesFor(destination);
  const decision = evaluate(policies, subject);
  return {
    path,
    verdict: decision.allowed ? "allowed" : "denied",
    reason: decision.allowed ? allowedText(decision.reason) : refusalText(decision),
    ...(!decision.allowed && { code: "POLICY_DENIED" as const }),
    ...(decision.policy !== undefined && { decidedBy: decision.policy }),
    policies: explainPolicies(policies, subject),
  };
}

function allowedText(reason: DecisionReason): string {
  return reason === "allowed"
    ? "an ALLOW policy matched and no DENY policy did"
    : "no ALLOW policy applies to the destination and no DENY policy matched";
}

const PATHS = {
  direct: "from application to application within the node, once ztunnel has let one through",
  local: "relayed inside this node's ztunnel, which holds both identities",
  hbone: "an mTLS tunnel between the ztunnels",
  tcp: "plain TCP",
  passthrough: "plain TCP, unchanged",
  "double-hbone": "two tunnels, through the other network's gateway",
} as const;

function pathOf(context: ProxyContext, journey: ExplainedJourney): keyof typeof PATHS {
  const { config } = context;
  const { source, route } = journey;
  if (route.kind === "named") return route.destination.protocol === "HBONE" ? "hbone" : "tcp";
  if (route.kind !== "hbone") return route.kind;
  const { node } = route.destination;
  if (node !== config.nodeName || node === "" || route.viaWaypoint) return "hbone";
  const path = sameNodePath(config.sameNode, source, route.destination);
  return path === "direct" ? explainDirect(context, journey) : path;
}

/** What is not direct though both sides want it is local. */
function explainDirect(
  context: ProxyContext,
  { source, destination, steps }: ExplainedJourney,
): "direct" | "local" {
  const decision = context.direct.decide(context, source, destination);
  const answer = decision.direct ? "yes" : `no: ${decision.why}`;
  steps.push({ question: "may it go past ztunnel", answer });
  return decision.direct ? "direct" : "local";
}
