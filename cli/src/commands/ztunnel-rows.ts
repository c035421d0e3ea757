// ztunnel's config dump as rows of tables. Pure.

import type { PodUsage } from "@ambit/common/telemetry/pod-usage.ts";

interface Gateway {
  readonly destination: string;
}

interface WorkloadDump {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly workloadIps: readonly string[];
  readonly node: string;
  readonly protocol: string;
  readonly status: string;
  readonly waypoint?: Gateway;
}

interface ServiceDump {
  readonly name: string;
  readonly namespace: string;
  readonly vips: readonly string[];
  readonly endpoints: Readonly<Record<string, { readonly workloadUid: string }>>;
  readonly waypoint?: Gateway;
}

interface CertificateDump {
  readonly serialNumber: string;
  readonly validFrom: string;
  readonly expirationTime: string;
}

interface ConnectionDump {
  readonly direction: string;
  readonly src: string;
  readonly originalDst: string;
  readonly actualDst: string;
  readonly protocol: string;
  /** Absent: not our ztunnel. */
  readonly bytesSent?: number;
  readonly bytesReceived?: number;
}

/** The parts of `/config_dump` that the tables show (ztunnel.md §7.3). */
export interface ConfigDump {
  readonly workloads: readonly WorkloadDump[];
  readonly services: readonly ServiceDump[];
  readonly policies: readonly {
    readonly name: string;
    readonly namespace: string;
    readonly action: string;
    readonly scope: string;
  }[];
  readonly certificates: readonly {
    readonly identity: string;
    readonly state: string;
    readonly certChain: readonly CertificateDump[];
    readonly rootCerts: readonly CertificateDump[];
  }[];
  readonly workloadState: Readonly<
    Record<
      string,
      {
        readonly info: { readonly name: string; readonly namespace: string };
        /** Absent: not our ztunnel. */
        readonly usage?: PodUsage;
        readonly connections: {
          readonly inbound: readonly ConnectionDump[];
          readonly outbound: readonly ConnectionDump[];
        };
      }
    >
  >;
}

const NONE = "None";

export function workloadRows({ workloads }: ConfigDump) {
  return sorted(workloads).map(({ namespace, name, workloadIps, node, waypoint, protocol }) => ({
    namespace,
    name,
    address: workloadIps[0],
    node,
    waypoint: waypoint?.destination ?? NONE,
    protocol,
  }));
}

export function serviceRows({ services, workloads }: ConfigDump) {
  const healthy = new Set(
    workloads.filter(({ status }) => status === "Healthy").map(({ uid }) => uid),
  );
  return sorted(services).map(({ namespace, name, vips, waypoint, endpoints }) => {
    const all = Object.values(endpoints);
    const ready = all.filter(({ workloadUid }) => healthy.has(workloadUid));
    return {
      namespace,
      name,
      // Addresses are "network/ip".
      vip: vips.map((vip) => vip.slice(vip.indexOf("/") + 1)).join(","),
      waypoint: waypoint?.destination ?? NONE,
      endpoints: `${ready.length}/${all.length}`,
    };
  });
}

export function policyRows({ policies }: ConfigDump) {
  return sorted(policies);
}

/** A row for each certificate of each identity, the leaf first. */
export function certificateRows(node: string, { certificates }: ConfigDump, nowMs: number) {
  return certificates.flatMap(({ identity, state, certChain, rootCerts }) => {
    const row = (type: string, certificate?: CertificateDump) => ({
      node,
      identity,
      type,
      status: state,
      valid: certificate && isValid(certificate, nowMs),
      serialNumber: certificate && BigInt(certificate.serialNumber).toString(16),
      notAfter: certificate?.expirationTime,
      notBefore: certificate?.validFrom,
    });
    const [leaf, ...intermediates] = certChain;
    return [
      row("Leaf", leaf),
      ...intermediates.map((certificate) => row("Intermediate", certificate)),
      ...rootCerts.map((certificate) => row("Root", certificate)),
    ];
  });
}

function isValid({ validFrom, expirationTime }: CertificateDump, nowMs: number): boolean {
  return Date.parse(validFrom) <= nowMs && nowMs < Date.parse(expirationTime);
}

export function connectionRows(node: string, { workloadState }: ConfigDump) {
  return Object.values(workloadState).flatMap(({ info, connections }) => {
    const { inbound, outbound } = connections;
    return [...inbound, ...outbound].map((connection) => {
      const isInbound = connection.direction === "inbound";
      return {
        node,
        workload: `${info.name}.${info.namespace}`,
        direction: isInbound ? "Inbound" : "Outbound",
        local: isInbound ? connection.originalDst : connection.src,
        remote: isInbound ? connection.src : connection.actualDst,
        remoteTarget: isInbound ? undefined : connection.originalDst,
        protocol: connection.protocol,
        sent: formatBytes(connection.bytesSent ?? 0),
        received: formatBytes(connection.bytesReceived ?? 0),
      };
    });
  });
}

export function podRows(node: string, { workloadState }: ConfigDump) {
  return Object.values(workloadState).map(({ info, connections, usage }) => ({
    node,
    pod: `${info.name}.${info.namespace}`,
    inbound: String(usage?.inbound ?? connections.inbound.length),
    outbound: String(usage?.outbound ?? connections.outbound.length),
    opened: usage && String(usage.opened),
    refused: usage && String(usage.refused),
    sent: usage && formatBytes(usage.sentBytes),
    received: usage && formatBytes(usage.receivedBytes),
    cpu: usage && `${usage.cpuSeconds.toFixed(2)}s`,
  }));
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Three digits are enough to see who is busy. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < BYTE_UNITS.length - 1; unit++) value /= 1024;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toPrecision(3)} ${BYTE_UNITS[unit]}`;
}

function sorted<T extends { readonly namespace: string; readonly name: string }>(
  rows: readonly T[],
): T[] {
  const key = ({ namespace, name }: T) => `${namespace}/${name}`;
  return [...rows].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}
