// xDS resources from any control plane: applied or rejected, and the look-ups stay sound.

import { create, toBinary } from "@bufbuild/protobuf";
import { AuthorizationSchema } from "@ambit/api/gen/istio/authorization_pb.ts";
import { AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import { assert } from "@ambit/common/process/assert.ts";
import { dumpState } from "./dump.ts";
import { MeshState } from "./mesh-state.ts";

export const name = "xds-resources";

export function corpus(): Uint8Array[] {
  const workload = create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        uid: "u",
        name: "n",
        addresses: [Uint8Array.of(10, 0, 0, 1)],
        services: { "a/b": { ports: [{ servicePort: 80 }] } },
      },
    },
  });
  const service = create(AddressSchema, {
    type: {
      case: "service",
      value: {
        namespace: "a",
        hostname: "b",
        addresses: [{ address: Uint8Array.of(10, 0, 0, 2), length: 24 }],
        ports: [{ servicePort: 80 }],
      },
    },
  });
  const policy = create(AuthorizationSchema, {
    name: "p",
    namespace: "a",
    rules: [{ clauses: [{ matches: [{ destinationPorts: [80] }] }] }],
  });
  return [
    toBinary(AddressSchema, workload),
    toBinary(AddressSchema, service),
    toBinary(AuthorizationSchema, policy),
  ];
}

export function fuzz(data: Uint8Array): void {
  const state = new MeshState();
  const update = { upserts: [{ name: "x", value: data }], removed: [] };
  const rejected = [...state.applyAddresses(update), ...state.applyAuthorizations(update)];
  for (const { reason } of rejected) assert(reason.length > 0, "a rejection says why");
  dumpState(state);
}
