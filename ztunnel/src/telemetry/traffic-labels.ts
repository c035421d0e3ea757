// The labels of a connection in the istio_tcp_* families.

import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import type { ConnectionFacts } from "./connection-telemetry.ts";
import type { Party } from "./party.ts";

/** Label values of one connection, without response_flags. */
export type TrafficLabels = Readonly<Record<string, string>>;

/** Who reports a connection of either direction. */
export const REPORTER = { outbound: "source", inbound: "destination" } as const;

const UNKNOWN = "unknown";

/** Labels in Istio's order; a missing value prints `unknown`, localities only when either is known. */
export function trafficLabels(facts: ConnectionFacts): TrafficLabels {
  const { source, destination, service } = facts;
  const mutual = facts.sourceIdentity !== undefined && facts.destinationIdentity !== undefined;
  return {
    reporter: REPORTER[facts.direction],
    ...sourceLabels(source, facts.sourceIdentity),
    destination_service: service?.hostname ?? UNKNOWN,
    destination_service_namespace: service?.namespace ?? UNKNOWN,
    destination_service_name: service?.name ?? UNKNOWN,
    destination_workload: destination.workload ?? UNKNOWN,
    destination_canonical_service: destination.canonicalName ?? UNKNOWN,
    destination_canonical_revision: destination.canonicalRevision ?? UNKNOWN,
    destination_workload_namespace: destination.namespace ?? UNKNOWN,
    destination_principal: facts.destinationPrincipal ?? UNKNOWN,
    destination_app: destination.canonicalName ?? UNKNOWN,
    destination_version: destination.canonicalRevision ?? UNKNOWN,
    destination_cluster: destination.cluster ?? UNKNOWN,
    request_protocol: "tcp",
    connection_security_policy: mutual ? "mutual_tls" : UNKNOWN,
    ...localityLabels(source, destination),
  };
}

/** The labels of a connection's source, its locality apart. */
export function sourceLabels(source: Party, identity: SpiffeId | undefined) {
  return {
    source_workload: source.workload ?? UNKNOWN,
    source_canonical_service: source.canonicalName ?? UNKNOWN,
    source_canonical_revision: source.canonicalRevision ?? UNKNOWN,
    source_workload_namespace: source.namespace ?? UNKNOWN,
    source_principal: identity ?? UNKNOWN,
    source_app: source.canonicalName ?? UNKNOWN,
    source_version: source.canonicalRevision ?? UNKNOWN,
    source_cluster: source.cluster ?? UNKNOWN,
  };
}

function localityLabels(source: Party, destination: Party): TrafficLabels {
  if (!source.region && !source.zone && !destination.region && !destination.zone) return {};
  return {
    source_region: source.region ?? UNKNOWN,
    source_zone: source.zone ?? UNKNOWN,
    destination_region: destination.region ?? UNKNOWN,
    destination_zone: destination.zone ?? UNKNOWN,
  };
}
