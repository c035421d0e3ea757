// Gateways as waypoints: where they are, whose traffic they take, and which labels of an object name one
// (facts of istiod's ambient waypoints). Every class of Gateway will do; ready is what has an address.

import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  ApplicationTunnel_Protocol as Protocol,
  type GatewayAddressSchema,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Gateway, GatewayClass } from "@ambit/api/resources/kinds.ts";
import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import { type LabelSelector, selectorMatches } from "@ambit/common/resources/label-selector.ts";
import { keyText } from "@ambit/common/resources/source.ts";
import { gatewayAddresses } from "./gateway-addresses.ts";
import { type Labels, labelsOf } from "./labels.ts";
import type { MeshSettings } from "./settings.ts";

export const USE_WAYPOINT = "istio.io/use-waypoint";
export const CANARY_WEIGHT = "istio.io/use-waypoint-canary-weight";
export const CANARY = "istio.io/use-waypoint-canary";
const WAYPOINT_FOR = "istio.io/waypoint-for";
const INBOUND_BINDING = "ambient.istio.io/waypoint-inbound-binding";
const INSTANCE_OF = "gateway.networking.k8s.io/gateway-name";
const MANAGED = "gateway.istio.io/managed";

/** What istiod's controllers write on the Services of waypoints and east-west gateways. */
const GATEWAY_SERVICES = new Set(["istio.io-mesh-controller", "istio.io-eastwest-controller"]);

/** Waypoints take HBONE there; Istio knows no other port either. */
const HBONE_PORT = 15_008;
const PORT_MAX = 65_535;

type Listener = Gateway["spec"]["listeners"][number];
export type GatewayAddress = MessageInitShape<typeof GatewayAddressSchema>;

/** How a ztunnel hands connections to a waypoint in its own pod ("sandwich"). */
export interface Binding {
  readonly protocol: Protocol;
  /** 0: the connection's own. */
  readonly port: number;
}

export interface Waypoint {
  /** "namespace/name". */
  readonly name: string;
  readonly namespace: string;
  readonly address: GatewayAddress;
  /** service, workload, all, or none of them. */
  readonly trafficType: string;
  readonly binding?: Binding;
  /** Whether objects of a namespace may use it. */
  readonly admits: (namespace: string, labels: Labels) => boolean;
}

/** undefined: it has no address yet. `kind` is its class, when that is known. */
export function waypointOf(
  gateway: Gateway,
  kind: GatewayClass | undefined,
  settings: MeshSettings,
): Waypoint | undefined {
  const address = addressOf(gateway, settings);
  if (address === undefined) return undefined;
  const { name, namespace = "" } = gateway.metadata;
  const binding = bindingOf(gateway, kind);
  return {
    name: `${namespace}/${name}`,
    namespace,
    address,
    trafficType:
      labelsOf(gateway)[WAYPOINT_FOR] ?? kind?.metadata.labels?.[WAYPOINT_FOR] ?? "service",
    ...(binding && { binding }),
    admits: admission(namespace, boundListener(gateway, binding)),
  };
}

/** By name rather than by address: a name stays, and stands for every address of it. */
function addressOf(gateway: Gateway, { network }: MeshSettings): GatewayAddress | undefined {
  const addresses = gatewayAddresses(gateway);
  const named = addresses.find(({ type }) => type === "Hostname");
  if (named !== undefined) {
    const hostname = { namespace: gateway.metadata.namespace ?? "", hostname: named.value };
    return {
      destination: { case: "hostname", value: hostname },
      hboneMtlsPort: HBONE_PORT,
    };
  }
  for (const { type, value } of addresses) {
    const ip = type === "IPAddress" ? parseIp(value) : undefined;
    if (ip === undefined) continue;
    return {
      destination: { case: "address", value: { network, address: ipToBytes(ip) } },
      hboneMtlsPort: HBONE_PORT,
    };
  }
  return undefined;
}

/** "PROTOCOL" or "PROTOCOL/port" in the annotation; anything else is none. */
function bindingOf(gateway: Gateway, kind: GatewayClass | undefined): Binding | undefined {
  const text =
    gateway.metadata.annotations?.[INBOUND_BINDING] ??
    kind?.metadata.annotations?.[INBOUND_BINDING];
  const [name = "", port = "0", ...rest] = text?.split("/") ?? [];
  const protocol = PROTOCOLS.get(name);
  if (protocol === undefined || rest.length > 0) return undefined;
  const number = /^\d+$/.test(port) ? Number(port) : 0;
  return { protocol, port: number <= PORT_MAX ? number : 0 };
}

const PROTOCOLS = new Map([
  ["NONE", Protocol.NONE],
  ["PROXY", Protocol.PROXY],
]);

/** The listener whose rules of admission count: the bound one, else that of HBONE. */
function boundListener({ spec }: Gateway, binding: Binding | undefined): Listener | undefined {
  const isBound = ({ port, protocol }: Listener) =>
    binding !== undefined &&
    (binding.port === 0
      ? binding.protocol === Protocol.PROXY && protocol === "istio.io/PROXY"
      : port === binding.port);
  return (
    spec.listeners.find(isBound) ??
    spec.listeners.find(({ port, protocol }) => port === HBONE_PORT && protocol === "HBONE")
  );
}

function admission(own: string, listener: Listener | undefined): Waypoint["admits"] {
  const { from = "Same", selector } = listener?.allowedRoutes?.namespaces ?? {};
  switch (from) {
    case "All":
      return () => true;
    case "Selector":
      return (_namespace, labels) => matches(selector, labels);
    case "Same":
      return (namespace) => namespace === own;
    case "None":
      return () => false;
  }
}

/** As Kubernetes: no selector selects nothing, an empty one everything. */
function matches(selector: LabelSelector | undefined, labels: Labels): boolean {
  return selector !== undefined && selectorMatches(selector, labels);
}

/** The Gateway that labels ask for, as a key; "none" opts out, undefined says nothing. */
export function waypointKey(labels: Labels, namespace: string): string | undefined {
  const name = labels[USE_WAYPOINT];
  if (name === undefined || name === "none") return name;
  return gatewayKey(labels[`${USE_WAYPOINT}-namespace`] ?? namespace, name);
}

/** The second Gateway, for a part of the connections. */
export function canaryKey(labels: Labels, namespace: string): string | undefined {
  const name = labels[CANARY];
  if (name === undefined || name === "" || name === "none") return undefined;
  return gatewayKey(labels[`${CANARY}-namespace`] ?? namespace, name);
}

/** The Gateway that a pod is an instance of. */
export function instanceKey(labels: Labels, namespace: string): string | undefined {
  const name = labels[INSTANCE_OF];
  return name === undefined || name === "" ? undefined : gatewayKey(namespace, name);
}

export function gatewayKey(namespace: string, name: string): string {
  return keyText({ kind: "Gateway", namespace, name });
}

/** The Service of a waypoint or gateway: it has no waypoint itself. */
export function isGatewayService(labels: Labels): boolean {
  return GATEWAY_SERVICES.has(labels[MANAGED] ?? "");
}
