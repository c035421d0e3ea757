// How clients of a service spread over its endpoints: internalTrafficPolicy, trafficDistribution and
// publishNotReadyAddresses as istio.workload.LoadBalancing.

import {
  LoadBalancing_HealthPolicy as HealthPolicy,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Namespace, Service, ServiceEntry } from "@ambit/api/resources/kinds.ts";

const ANNOTATION = "networking.istio.io/traffic-distribution";

const { NETWORK, REGION, ZONE, SUBZONE, NODE } = Scope;

/** By the lower-case text of the wish; any other text is no wish. */
const PREFERENCES = new Map<string, Scope[]>([
  ["preferclose", [NETWORK, REGION, ZONE]],
  ["prefersamezone", [NETWORK, REGION, ZONE]],
  ["prefersamenode", [NETWORK, REGION, ZONE, SUBZONE, NODE]],
]);

interface Balanced {
  readonly loadBalancing?: { mode?: Mode; routingPreference?: Scope[]; healthPolicy: HealthPolicy };
}

/** Local beats every preference; the spec beats the service's annotation, that the namespace's. */
export function serviceBalancing(service: Service, namespace: Namespace | undefined): Balanced {
  const { spec } = service;
  const healthPolicy = spec?.publishNotReadyAddresses
    ? HealthPolicy.ALLOW_ALL
    : HealthPolicy.ONLY_HEALTHY;
  if (spec?.internalTrafficPolicy === "Local") {
    return { loadBalancing: { mode: Mode.STRICT, routingPreference: [NODE], healthPolicy } };
  }
  const preference = preferenceOf(spec?.trafficDistribution ?? annotated(service, namespace));
  if (preference.length > 0) {
    return {
      loadBalancing: { mode: Mode.FAILOVER, routingPreference: preference, healthPolicy },
    };
  }
  return healthPolicy === HealthPolicy.ALLOW_ALL ? { loadBalancing: { healthPolicy } } : {};
}

/** Without resolution there is nothing to choose: traffic goes where the client sent it. */
export function serviceEntryBalancing(
  entry: ServiceEntry,
  namespace: Namespace | undefined,
): Balanced {
  if (entry.spec.resolution === "NONE") {
    return { loadBalancing: { mode: Mode.PASSTHROUGH, healthPolicy: HealthPolicy.ALLOW_ALL } };
  }
  const preference = preferenceOf(annotated(entry, namespace));
  if (preference.length === 0) return {};
  return {
    loadBalancing: {
      mode: Mode.FAILOVER,
      routingPreference: preference,
      healthPolicy: HealthPolicy.ONLY_HEALTHY,
    },
  };
}

function annotated(
  { metadata }: Service | ServiceEntry,
  namespace: Namespace | undefined,
): string | undefined {
  return metadata.annotations?.[ANNOTATION] ?? namespace?.metadata.annotations?.[ANNOTATION];
}

function preferenceOf(wish = ""): Scope[] {
  return PREFERENCES.get(wish.toLowerCase()) ?? [];
}
