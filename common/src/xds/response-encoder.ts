// Delta responses as bytes. Each resource is framed once and shared by the responses to all clients, so a
// full push is a copy, not an encoding. Field numbers: DeltaDiscoveryResponse and Resource in
// api/proto/envoy/discovery.proto.

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { DeltaDiscoveryResponseSchema } from "@ambit/api/gen/envoy/discovery_pb.ts";
import type { XdsResource } from "./resource-type.ts";

export interface ResponseContent {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly upserts: readonly XdsResource[];
  readonly removed: readonly string[];
}

/** Framed resources: `resources` field entries, ready to be concatenated. */
const framed = new WeakMap<XdsResource, Uint8Array>();

/** The serialized DeltaDiscoveryResponse. Protobuf messages concatenate: fields may come in parts. */
export function encodeResponse(content: ResponseContent): Buffer {
  const { typeUrl, nonce, upserts, removed } = content;
  const envelope = encode({ typeUrl, nonce, removedResources: [...removed] });
  return Buffer.concat([envelope, ...upserts.map((resource) => frame(typeUrl, resource))]);
}

/** A response whose resources are framed already: see frameAll(). */
export function encodeSnapshotResponse(
  content: Omit<ResponseContent, "upserts">,
  resources: Buffer,
): Buffer {
  const { typeUrl, nonce, removed } = content;
  return Buffer.concat([encode({ typeUrl, nonce, removedResources: [...removed] }), resources]);
}

/** The resources as they stand in every response that has them all. */
export function frameAll(typeUrl: string, resources: Iterable<XdsResource>): Buffer {
  return Buffer.concat(Array.from(resources, (resource) => frame(typeUrl, resource)));
}

/** Bytes the resource takes in a response. */
export function framedBytes(typeUrl: string, resource: XdsResource): number {
  return frame(typeUrl, resource).length;
}

function frame(typeUrl: string, resource: XdsResource): Uint8Array {
  return framed.getOrInsertComputed(resource, ({ name, version, aliases, value }) =>
    encode({ resources: [{ name, version, aliases: [...aliases], resource: { typeUrl, value } }] }),
  );
}

function encode(fields: MessageInitShape<typeof DeltaDiscoveryResponseSchema>): Uint8Array {
  return toBinary(DeltaDiscoveryResponseSchema, create(DeltaDiscoveryResponseSchema, fields));
}
