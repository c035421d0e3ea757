// Services of the local mesh: their addresses, their ready endpoints, and the nftables rules by which a
// node translates one into the other for traffic that ztunnel did not take. Pure.

import type { EndpointSlice, Pod, Service } from "@ambit/api/resources/kinds.ts";
import { formatCidr } from "@ambit/common/net/cidr.ts";
import { type Ip, ipFamily, type IpFamily, parseIp } from "@ambit/common/net/ip.ts";
import { freeServiceIp, SERVICE_RANGE_V4, SERVICE_RANGE_V6 } from "./addresses.ts";
import { isReady, isTerminal, matchesLabels, podIps } from "./pod-facts.ts";

const HEADLESS = "None";
const SERVICE_NAME_LABEL = "kubernetes.io/service-name";

/** The addresses of a Service; none for headless and external ones. */
export function serviceIps({ spec }: Service): Ip[] {
  const texts = spec.clusterIPs ?? (spec.clusterIP === undefined ? [] : [spec.clusterIP]);
  return texts.flatMap((text) => parseIp(text) ?? []);
}

export function isHeadless({ spec }: Service): boolean {
  return spec.clusterIP === HEADLESS;
}

/** The Services that lack their address, each completed. Addresses given in manifests are kept. */
export function assignServiceIps(services: readonly Service[]): Service[] {
  const taken = new Set<string>(services.flatMap(serviceIps));
  return services.filter(needsAddress).map((service) => {
    const families = familiesOf(service);
    const ips = families.map((family) => {
      const own = serviceIps(service).find((ip) => ipFamily(ip) === family);
      const ip = own ?? freeServiceIp(family, taken);
      taken.add(ip);
      return ip;
    });
    const spec = { ...service.spec, clusterIP: ips[0], clusterIPs: ips };
    return { ...service, spec };
  });
}

function needsAddress(service: Service): boolean {
  if (service.spec.type === "ExternalName" || isHeadless(service)) return false;
  return serviceIps(service).length < familiesOf(service).length;
}

function familiesOf({ spec }: Service): IpFamily[] {
  const policy = (spec as { ipFamilyPolicy?: unknown }).ipFamilyPolicy;
  const listed = (spec.ipFamilies ?? []).map((family): IpFamily => (family === "IPv6" ? 6 : 4));
  const single: IpFamily[] = listed.length > 0 ? listed : [4];
  if (policy !== "PreferDualStack" && policy !== "RequireDualStack") return single;
  return single[0] === 6 ? [6, 4] : [4, 6];
}

/** Where one port of a Service leads. */
export interface Endpoint {
  readonly ip: Ip;
  readonly port: number;
}

/** The pods behind a Service that may get traffic. */
export function servingPods(service: Service, pods: readonly Pod[]): Pod[] {
  const { selector, publishNotReadyAddresses } = service.spec;
  if (selector === undefined || Object.keys(selector).length === 0) return [];
  return pods.filter(
    (pod) =>
      pod.metadata.namespace === service.metadata.namespace &&
      matchesLabels(selector, pod.metadata.labels) &&
      !isTerminal(pod) &&
      (isReady(pod) || publishNotReadyAddresses === true),
  );
}

type ServicePort = NonNullable<Service["spec"]["ports"]>[number];

export function endpointsOf(
  service: Service,
  port: ServicePort,
  pods: readonly Pod[],
  slices: readonly EndpointSlice[],
): Endpoint[] {
  const { targetPort = port.port } = port;
  const fromPods = servingPods(service, pods).flatMap((pod) => {
    const number = typeof targetPort === "number" ? targetPort : namedPort(pod, targetPort);
    return number === undefined ? [] : endpoints(podIps(pod), number);
  });
  return [...fromPods, ...endpointsOfSlices(service, port, slices)];
}

function endpointsOfSlices(
  { metadata }: Service,
  { name }: ServicePort,
  slices: readonly EndpointSlice[],
): Endpoint[] {
  const own = slices.filter(
    (slice) =>
      slice.metadata.namespace === metadata.namespace &&
      slice.metadata.labels?.[SERVICE_NAME_LABEL] === metadata.name,
  );
  return own.flatMap((slice) => {
    const target = slice.ports?.find((candidate) => (candidate.name ?? "") === (name ?? ""));
    if (target?.port === undefined) return [];
    const ready = slice.endpoints.filter(({ conditions }) => conditions?.ready !== false);
    return ready.flatMap(({ addresses }) => endpoints(addresses, target.port!));
  });
}

function endpoints(ips: readonly string[], port: number): Endpoint[] {
  return ips.flatMap((text) => {
    const ip = parseIp(text);
    return ip === undefined ? [] : [{ ip, port }];
  });
}

export function namedPort(pod: Pod, name: string): number | undefined {
  return pod.spec.containers.flatMap(({ ports = [] }) => ports).find((port) => port.name === name)
    ?.containerPort;
}

export const SERVICE_TABLE = "ambit-services";
/** ztunnel's own sockets (istio.md §2.9): it picks endpoints itself, what it dials is left alone. */
const ZTUNNEL_MARK = "0x539";

/**
 * The whole ruleset of a node as one transaction that replaces the last: each new connection to a
 * Service goes to a random ready endpoint, one without endpoints is refused at once.
 */
export function renderServiceRules(
  services: readonly Service[],
  pods: readonly Pod[],
  slices: readonly EndpointSlice[],
): string {
  const translations = services.flatMap((service) =>
    (service.spec.ports ?? []).flatMap((port) => {
      const all = endpointsOf(service, port, pods, slices);
      return serviceIps(service).flatMap((ip) => {
        const targets = all.filter((endpoint) => ipFamily(endpoint.ip) === ipFamily(ip));
        return targets.length === 0 ? [] : [translation(ip, port, targets)];
      });
    }),
  );
  const hairpins = [4, 6].map((family) => hairpin(pods, family as IpFamily));
  return `table inet ${SERVICE_TABLE}
delete table inet ${SERVICE_TABLE}
table inet ${SERVICE_TABLE} {
  chain services {
    meta mark and 0xfff == ${ZTUNNEL_MARK} return
${translations.map((line) => `    ${line}`).join("\n")}
  }
  chain prerouting { type nat hook prerouting priority -100; jump services; }
  chain output { type nat hook output priority -100; jump services; }
  chain postrouting {
    type nat hook postrouting priority 100;
${hairpins.map((line) => `    ${line}`).join("\n")}
  }
  chain refusal {
    ip daddr ${formatCidr(SERVICE_RANGE_V4)} meta l4proto tcp reject with tcp reset
    ip daddr ${formatCidr(SERVICE_RANGE_V4)} reject
    ip6 daddr ${formatCidr(SERVICE_RANGE_V6)} meta l4proto tcp reject with tcp reset
    ip6 daddr ${formatCidr(SERVICE_RANGE_V6)} reject
  }
  chain forwarded { type filter hook forward priority 0; jump refusal; }
  chain sent { type filter hook output priority 0; jump refusal; }
}
`;
}

function translation(ip: Ip, port: ServicePort, targets: readonly Endpoint[]): string {
  const family = ipFamily(ip) === 4 ? "ip" : "ip6";
  const protocol = port.protocol.toLowerCase();
  const match = `${family} daddr ${ip} ${protocol} dport ${port.port}`;
  const map = targets.map((target, i) => `${i} : ${target.ip} . ${target.port}`).join(", ");
  return `${match} dnat ${family} to numgen random mod ${targets.length} map { ${map} }`;
}

/** A pod that reaches itself through a Service must see the node as the peer, or it would answer itself directly. */
function hairpin(pods: readonly Pod[], family: IpFamily): string {
  const ips = pods
    .filter(({ spec }) => spec.hostNetwork !== true)
    .flatMap((pod) => endpoints(podIps(pod), 0))
    .filter(({ ip }) => ipFamily(ip) === family);
  if (ips.length === 0) return "";
  const keyword = family === 4 ? "ip" : "ip6";
  const pairs = ips.map(({ ip }) => `${ip} . ${ip}`).join(", ");
  return `ct status dnat ${keyword} saddr . ${keyword} daddr { ${pairs} } masquerade`;
}
