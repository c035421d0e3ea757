// Addresses as a control plane keeps them: with the keys by which they are asked for on demand, and the
// node and services they go with.

import { fromBinary } from "@bufbuild/protobuf";
import { AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import { contentVersion, type XdsResource } from "@ambit/common/xds/resource-type.ts";
import { addressFromProto } from "../state/from-proto.ts";
import { addressKey, type ResourceUpsert } from "../state/mesh-state.ts";

export function addressOnDemand({ name, value }: ResourceUpsert): XdsResource {
  const address = addressFromProto(fromBinary(AddressSchema, value));
  const resource = { name, value, version: contentVersion(value) };
  if (address.kind === "service") {
    return { ...resource, aliases: address.service.vips.map(addressKey) };
  }
  const { addresses, network, node, services } = address.workload;
  const aliases = addresses.map((ip) => addressKey({ network, ip }));
  return { ...resource, aliases, node, parents: [...services.keys()] };
}
