// A mesh in a few words, for tests: workloads, services and policies by short descriptions, applied as
// xDS does.

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { AuthorizationSchema } from "@ambit/api/gen/istio/authorization_pb.ts";
import {
  AddressSchema,
  type ServiceSchema,
  TunnelProtocol,
  type WorkloadSchema,
} from "@ambit/api/gen/istio/workload_pb.ts";
import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import { MeshState, type Rejection, type ResourceUpsert } from "./mesh-state.ts";
import type { Workload, WorkloadUid } from "./workload.ts";

type WireWorkload = MessageInitShape<typeof WorkloadSchema>;
type WireService = MessageInitShape<typeof ServiceSchema>;
type WirePolicy = MessageInitShape<typeof AuthorizationSchema>;

export const bytes = (text: string): Uint8Array => ipToBytes(parseIp(text)!);

/** A pod of namespace `ns` on node-1 that speaks HBONE, unless `changes` say otherwise. */
export function workloadResource(
  name: string,
  addresses: readonly string[],
  changes: WireWorkload = {},
): ResourceUpsert {
  const value: WireWorkload = {
    uid: `c//Pod/ns/${name}`,
    name,
    namespace: "ns",
    serviceAccount: name,
    addresses: addresses.map(bytes),
    node: "node-1",
    tunnelProtocol: TunnelProtocol.HBONE,
    ...changes,
  };
  return addressResource(value.uid!, { case: "workload", value });
}

/** A service of namespace `ns` with port 80. */
export function serviceResource(
  name: string,
  vips: readonly string[],
  changes: WireService = {},
): ResourceUpsert {
  const value: WireService = {
    name,
    namespace: "ns",
    hostname: `${name}.ns.svc.cluster.local`,
    addresses: vips.map((vip) => ({ address: bytes(vip) })),
    ports: [{ servicePort: 80, targetPort: 8080 }],
    ...changes,
  };
  return addressResource(`${value.namespace}/${value.hostname}`, { case: "service", value });
}

/** A policy of namespace `ns`: an ALLOW of global scope without rules, unless `changes` say otherwise. */
export function policyResource(name: string, changes: WirePolicy = {}): ResourceUpsert {
  const policy = create(AuthorizationSchema, { name, namespace: "ns", ...changes });
  return { name: `${policy.namespace}/${name}`, value: toBinary(AuthorizationSchema, policy) };
}

function addressResource(
  name: string,
  type: NonNullable<MessageInitShape<typeof AddressSchema>["type"]>,
): ResourceUpsert {
  return { name, value: toBinary(AddressSchema, create(AddressSchema, { type })) };
}

export class TestMesh {
  readonly state = new MeshState();

  workload(...described: Parameters<typeof workloadResource>): this {
    return this.#apply(workloadResource(...described));
  }

  service(...described: Parameters<typeof serviceResource>): this {
    return this.#apply(serviceResource(...described));
  }

  policy(...described: Parameters<typeof policyResource>): this {
    const upserts = [policyResource(...described)];
    refuseRejected(this.state.applyAuthorizations({ upserts, removed: [] }));
    return this;
  }

  removePolicy(name: string): this {
    this.state.applyAuthorizations({ upserts: [], removed: [`ns/${name}`] });
    return this;
  }

  remove(...names: string[]): this {
    this.state.applyAddresses({ upserts: [], removed: names });
    return this;
  }

  get(name: string): Workload {
    return this.state.workload(`c//Pod/ns/${name}` as WorkloadUid)!;
  }

  #apply(resource: ResourceUpsert): this {
    refuseRejected(this.state.applyAddresses({ upserts: [resource], removed: [] }));
    return this;
  }
}

function refuseRejected([first]: readonly Rejection[]): void {
  if (first !== undefined) throw new Error(first.reason);
}

/** `services` of a workload: one service of namespace ns, port 80 to `target`. */
export function serves(service: string, target = 8080): NonNullable<WireWorkload["services"]> {
  return {
    [`ns/${service}.ns.svc.cluster.local`]: { ports: [{ servicePort: 80, targetPort: target }] },
  };
}
