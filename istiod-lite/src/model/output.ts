// What an object was translated to, serialized, and the difference between two of these.

import { toBinary } from "@bufbuild/protobuf";
import { type Authorization, AuthorizationSchema } from "@ambit/api/gen/istio/authorization_pb.ts";
import { type Address, AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import {
  contentVersion,
  TYPE_ADDRESS,
  TYPE_AUTHORIZATION,
  type XdsChange,
  type XdsResource,
} from "@ambit/common/xds/resource-type.ts";
import { addressAliases, addressName } from "../translate/address-names.ts";

export interface Output {
  readonly typeUrl: string;
  readonly resource: XdsResource;
}

export function addressOutput(address: Address): Output {
  const value = toBinary(AddressSchema, address);
  const node = address.type.case === "workload" ? address.type.value.node : "";
  const parents = address.type.case === "workload" ? Object.keys(address.type.value.services) : [];
  const resource: XdsResource = {
    name: addressName(address),
    version: contentVersion(value),
    aliases: addressAliases(address),
    value,
    parents,
    ...(node !== "" && { node }),
  };
  return { typeUrl: TYPE_ADDRESS, resource };
}

export function authorizationOutput(authorization: Authorization): Output {
  const value = toBinary(AuthorizationSchema, authorization);
  const name = `${authorization.namespace}/${authorization.name}`;
  const resource = { name, version: contentVersion(value), aliases: [], value };
  return { typeUrl: TYPE_AUTHORIZATION, resource };
}

/** Gathers what changed, type by type. A name that one object lost and another took is no removal. */
export class ChangeSet {
  readonly #types = new Map<string, { upserts: Map<string, XdsResource>; removed: Set<string> }>();

  /** Notes that an object's outputs were `before` and are `after`. */
  add(before: readonly Output[], after: readonly Output[]): void {
    const old = new Map(before.map((output) => [idOf(output), output]));
    for (const output of after) {
      const { typeUrl, resource } = output;
      const known = old.get(idOf(output))?.resource.version;
      if (known !== resource.version) this.#of(typeUrl).upserts.set(resource.name, resource);
      old.delete(idOf(output));
    }
    for (const { typeUrl, resource } of old.values()) this.#of(typeUrl).removed.add(resource.name);
  }

  get changes(): XdsChange[] {
    return [...this.#types].map(([typeUrl, { upserts, removed }]) => ({
      typeUrl,
      upserts: [...upserts.values()],
      removed: [...removed].filter((name) => !upserts.has(name)),
    }));
  }

  #of(typeUrl: string) {
    return this.#types.getOrInsertComputed(typeUrl, () => ({
      upserts: new Map<string, XdsResource>(),
      removed: new Set<string>(),
    }));
  }
}

function idOf({ typeUrl, resource }: Output): string {
  return `${typeUrl} ${resource.name}`;
}
