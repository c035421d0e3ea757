// What telemetry says of a direct connection, for both reporters: the same as of a local one, whose bytes
// ztunnel itself relays.

import type { DirectFlow } from "@ambit/common/sys/bpf-direct.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import type { Service } from "../state/service.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import type { ConnectionFacts, Direction } from "../telemetry/connection-telemetry.ts";
import { partyOfWorkload } from "../telemetry/party.ts";

/** Who a flow is between. */
export interface FlowParties {
  readonly source: Workload;
  readonly target: Workload;
  /** What was called, when that was not the pod itself. */
  readonly service?: Service;
}

/** The same at both ends and in every listing: nobody draws a random one when the kernel connects. */
export function flowId({ cookie, startedNs }: DirectFlow): string {
  return hex(startedNs) + hex(cookie);
}

function hex(value: bigint): string {
  return value.toString(16).padStart(16, "0");
}

export function flowFacts(
  flow: DirectFlow,
  { source, target, service }: FlowParties,
  direction: Direction,
): ConnectionFacts {
  const principal = spiffeId(workloadIdentity(target));
  return {
    id: flowId(flow),
    direction,
    path: "direct",
    sourceAddress: flow.source,
    destinationAddress: flow.destination,
    source: partyOfWorkload(source),
    destination: partyOfWorkload(target),
    sourceIdentity: spiffeId(workloadIdentity(source)),
    destinationIdentity: principal,
    destinationPrincipal: principal,
    ...(service && {
      service: { hostname: service.hostname, namespace: service.namespace, name: service.name },
    }),
  };
}
