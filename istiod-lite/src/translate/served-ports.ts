// Which port of an endpoint stands behind which port of a service, for every pairing of the two.

import type {
  EndpointSlice,
  Pod,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from "@ambit/api/resources/kinds.ts";
import { tcpPorts } from "./service.ts";

export interface PortPair {
  readonly servicePort: number;
  readonly targetPort: number;
}

/** A service as one of its endpoints sees it. */
export interface ServedService {
  /** "namespace/hostname". */
  readonly name: string;
  readonly ports: readonly PortPair[];
}

/** What an inline endpoint of a ServiceEntry and a WorkloadEntry have in common. */
type EntrySpec = WorkloadEntry["spec"];

/** Sorted by name: equal workloads must serialize equally. */
export function servicesField(services: readonly ServedService[]): {
  [name: string]: { ports: PortPair[] };
} {
  const sorted = [...services].sort((a, b) => (a.name < b.name ? -1 : 1));
  return Object.fromEntries(sorted.map(({ name, ports }) => [name, { ports: [...ports] }]));
}

/** A named port that the pod does not declare is left out. */
export function podPortsOfService(pod: Pod, service: Service): PortPair[] {
  return tcpPorts(service).flatMap(({ port, targetPort = port }) =>
    pair(port, typeof targetPort === "number" ? targetPort : containerPort(pod, targetPort)),
  );
}

/** Native sidecars are init containers that go on running. */
function containerPort(pod: Pod, wanted: string): number | undefined {
  const sidecars = pod.spec.initContainers?.filter(
    ({ restartPolicy }) => restartPolicy === "Always",
  );
  for (const { ports = [] } of [...pod.spec.containers, ...(sidecars ?? [])]) {
    const found = ports.find(({ name, protocol }) => name === wanted && protocol === "TCP");
    if (found !== undefined) return found.containerPort;
  }
  return undefined;
}

/** The entry's own port of the targeted name; else that of the service port's name, or its number. */
export function entryPortsOfService({ ports }: EntrySpec, service: Service): PortPair[] {
  return tcpPorts(service).flatMap(({ name = "", port, targetPort = port }) =>
    pair(
      port,
      typeof targetPort === "string" ? ports?.[targetPort] : (ports?.[name] ?? targetPort),
    ),
  );
}

/** A container port of the entry's port's name beats the number that the entry targets. */
export function podPortsOfServiceEntry(pod: Pod, { spec }: ServiceEntry): PortPair[] {
  return (spec.ports ?? []).map(({ name, number, targetPort = number }) => ({
    servicePort: number,
    targetPort: containerPort(pod, name) ?? targetPort,
  }));
}

export function entryPortsOfServiceEntry({ ports }: EntrySpec, { spec }: ServiceEntry): PortPair[] {
  return (spec.ports ?? []).map(({ name, number, targetPort = number }) => ({
    servicePort: number,
    targetPort: ports?.[name] ?? targetPort,
  }));
}

/** A slice names its ports as the service does, and says what number that is at its endpoints. */
export function slicePortsOfService({ ports = [] }: EndpointSlice, service: Service): PortPair[] {
  return tcpPorts(service).flatMap((port) => {
    const found = ports.find(
      ({ name = "", protocol }) => name === (port.name ?? "") && protocol === "TCP",
    );
    return pair(port.port, found?.port);
  });
}

function pair(servicePort: number, targetPort: number | undefined): PortPair[] {
  return targetPort === undefined ? [] : [{ servicePort, targetPort }];
}
