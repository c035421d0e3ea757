// The names of the cluster domain, as Kubernetes' DNS specification has them: Services, headless
// Services and the pods that Services name. Pure.

import type { Ip, IpFamily } from "@ambit/common/net/ip.ts";
import { ipFamily, parseIp } from "@ambit/common/net/ip.ts";
import type { ClusterView } from "./cluster-view.ts";
import { podIps } from "./pod-facts.ts";
import { isHeadless, serviceIps, servingPods } from "./services.ts";

export const CLUSTER_DOMAIN = "cluster.local";

export type NameAnswer =
  | { readonly kind: "addresses"; readonly ips: readonly Ip[] }
  | { readonly kind: "alias"; readonly target: string }
  /** The name does not exist, for any record type. */
  | { readonly kind: "unknown" };

/** Looks up `service.namespace.svc.cluster.local` and names below it. `name` is lower case, without final dot. */
export function resolveName(
  view: Pick<ClusterView, "get" | "list">,
  name: string,
  family: IpFamily | undefined,
): NameAnswer {
  const suffix = `.svc.${CLUSTER_DOMAIN}`;
  if (!name.endsWith(suffix)) return { kind: "unknown" };
  const labels = name.slice(0, -suffix.length).split(".");
  const [namespace = "", serviceName = "", host, ...rest] = labels.toReversed();
  const service = view.get("Service", namespace, serviceName);
  if (service === undefined || rest.length > 0) return { kind: "unknown" };
  const { externalName } = service.spec;
  if (externalName !== undefined) return { kind: "alias", target: externalName };
  if (!isHeadless(service)) {
    return host === undefined ? addresses(serviceIps(service), family) : { kind: "unknown" };
  }
  const pods = servingPods(service, view.list("Pod"));
  const named = host === undefined ? pods : pods.filter(({ metadata }) => metadata.name === host);
  const ips = named.flatMap(podIps).flatMap((ip) => parseIp(ip) ?? []);
  return host !== undefined && ips.length === 0 ? { kind: "unknown" } : addresses(ips, family);
}

function addresses(ips: readonly Ip[], family: IpFamily | undefined): NameAnswer {
  return { kind: "addresses", ips: ips.filter((ip) => ipFamily(ip) === family) };
}
