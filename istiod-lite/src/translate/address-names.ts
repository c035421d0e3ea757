// The names of an Address: its resource name, and the "network/ip" aliases it also answers to.

import type { Address } from "@ambit/api/gen/istio/workload_pb.ts";
import { ipFromBytes } from "@ambit/common/net/ip.ts";

/** Workload uid, or "namespace/hostname" of a service. */
export function addressName({ type }: Address): string {
  if (type.case === "workload") return type.value.uid;
  return type.case === "service" ? `${type.value.namespace}/${type.value.hostname}` : "";
}

export function addressAliases({ type }: Address): string[] {
  if (type.case === "workload") {
    const { network, addresses } = type.value;
    return addresses.flatMap((bytes) => alias(network, bytes));
  }
  if (type.case !== "service") return [];
  return type.value.addresses.flatMap(({ network, address, length }) => {
    const suffix = length === undefined ? "" : `/${length}`;
    return alias(network, address).map((text) => text + suffix);
  });
}

function alias(network: string, bytes: Uint8Array): string[] {
  const ip = ipFromBytes(bytes);
  return ip === undefined ? [] : [`${network}/${ip}`];
}
