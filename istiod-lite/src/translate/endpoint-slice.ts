// EndpointSlices to workloads: endpoints that are no pods (facts of istiod's ambient index). Nothing is
// known of them but their address, so they have no identity, no policies and no locality.

import { create } from "@bufbuild/protobuf";
import {
  type Address,
  AddressSchema,
  NetworkMode,
  WorkloadStatus,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { EndpointSlice, Service } from "@ambit/api/resources/kinds.ts";
import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import { serviceResourceName } from "./service.ts";
import { servicesField, slicePortsOfService } from "./served-ports.ts";
import { type MeshSettings, trustDomainField } from "./settings.ts";

type Endpoint = EndpointSlice["endpoints"][number];

/** The name of the service that the slice belongs to; without one it is a bag of addresses. */
export function sliceServiceName({ metadata }: EndpointSlice): string | undefined {
  return metadata.labels?.["kubernetes.io/service-name"];
}

/** The pod that an endpoint is, which says more about itself than the slice does. */
export function endpointPod(
  { targetRef }: Endpoint,
  { metadata }: EndpointSlice,
): { namespace: string; name: string } | undefined {
  if (targetRef?.kind !== "Pod") return undefined;
  return { namespace: targetRef.namespace ?? metadata.namespace ?? "", name: targetRef.name };
}

/** `service` is the one that the slice belongs to. Endpoints by name (FQDN) are not of the mesh. */
export function translateEndpointSlice(
  slice: EndpointSlice,
  service: Service,
  settings: MeshSettings,
): Address[] {
  if (slice.addressType === "FQDN") return [];
  const ports = slicePortsOfService(slice, service);
  const services = servicesField([{ name: serviceResourceName(service, settings), ports }]);
  const byAddress = new Map<string, Endpoint>();
  for (const endpoint of slice.endpoints) {
    const [address] = endpoint.addresses;
    if (address === undefined || endpointPod(endpoint, slice) !== undefined) continue;
    if (!byAddress.has(address)) byAddress.set(address, endpoint);
  }
  return [...byAddress].flatMap(([address, endpoint]) => {
    const addresses = endpoint.addresses.flatMap((text) => parseIp(text) ?? []);
    if (addresses.length < endpoint.addresses.length) return [];
    return workloadOf(slice, settings, {
      uid: `${settings.clusterId}/discovery.k8s.io/EndpointSlice/${slice.metadata.namespace}/${slice.metadata.name}/${address}`,
      addresses: addresses.map(ipToBytes),
      status:
        endpoint.conditions?.ready === false ? WorkloadStatus.UNHEALTHY : WorkloadStatus.HEALTHY,
      services,
    });
  });
}

function workloadOf(
  { metadata }: EndpointSlice,
  settings: MeshSettings,
  own: {
    uid: string;
    addresses: Uint8Array[];
    status: WorkloadStatus;
    services: ReturnType<typeof servicesField>;
  },
): Address {
  return create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        ...own,
        name: metadata.name,
        namespace: metadata.namespace ?? "",
        network: settings.network,
        clusterId: settings.clusterId,
        trustDomain: trustDomainField(settings),
        // Its address may be shared with others: it must not stand for this workload alone.
        networkMode: NetworkMode.HOST_NETWORK,
      },
    },
  });
}
