// Gateways into other networks, which no route leads to (facts of istiod's ambient networks): Gateways of
// class istio-remote with the network in a label. Each is a workload of its own that tunnels end at.

import { create } from "@bufbuild/protobuf";
import { type Address, AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import type { Gateway } from "@ambit/api/resources/kinds.ts";
import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import { gatewayAddresses } from "./gateway-addresses.ts";
import { labelsOf } from "./labels.ts";
import { type MeshSettings, trustDomainField } from "./settings.ts";
import type { GatewayAddress } from "./waypoint.ts";

const REMOTE_CLASS = "istio-remote";
const NETWORK_LABEL = "topology.istio.io/network";
const ACCOUNT_ANNOTATION = "gateway.istio.io/service-account";

export interface NetworkGateway {
  readonly network: string;
  /** An IP address or a name. */
  readonly address: string;
  readonly port: number;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** None when it is no gateway to another network, or without address or HBONE listener. */
export function networkGatewaysOf(gateway: Gateway): NetworkGateway[] {
  const network = labelsOf(gateway)[NETWORK_LABEL] ?? "";
  const { spec, metadata } = gateway;
  const listener = spec.listeners.find(({ protocol }) => protocol === "HBONE");
  if (network === "" || spec.gatewayClassName !== REMOTE_CLASS || listener === undefined) return [];
  return gatewayAddresses(gateway)
    .filter(({ type }) => type === "IPAddress" || type === "Hostname")
    .map(({ value }) => ({
      network,
      address: value,
      port: listener.port,
      namespace: metadata.namespace ?? "",
      serviceAccount:
        metadata.annotations?.[ACCOUNT_ANNOTATION] ?? `${metadata.name}-${REMOTE_CLASS}`,
    }));
}

/** How workloads of its network refer to it. */
export function networkGatewayAddress(gateway: NetworkGateway): GatewayAddress {
  const { network, address, port, namespace } = gateway;
  const ip = parseIp(address);
  return {
    destination:
      ip === undefined
        ? { case: "hostname", value: { namespace, hostname: address } }
        : { case: "address", value: { network, address: ipToBytes(ip) } },
    hboneMtlsPort: port,
  };
}

export function networkGatewayWorkload(gateway: NetworkGateway, settings: MeshSettings): Address {
  const { network, address, port, namespace, serviceAccount } = gateway;
  const ip = parseIp(address);
  const uid = `NetworkGateway/${network}/${address}/${port}`;
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid,
        name: uid,
        namespace,
        serviceAccount,
        network,
        trustDomain: trustDomainField(settings),
        addresses: ip === undefined ? [] : [ipToBytes(ip)],
        hostname: ip === undefined ? address : "",
      },
    },
  });
}
