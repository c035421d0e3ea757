// ZDS packets (facts: zds.proto; one bare protobuf message each): what the agent sends, and a strict
// reading of what ztunnel sends. Never throws on input.

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  Version,
  WorkloadRequestSchema,
  type WorkloadResponse,
  WorkloadResponseSchema,
  type ZdsHello,
  ZdsHelloSchema,
} from "@ambit/api/gen/istio/zds_pb.ts";
import { assert } from "@ambit/common/process/assert.ts";
import { PACKET_BYTES_MAX } from "@ambit/common/sys/seqpacket.ts";

/** A pod as ztunnel gets it. */
export interface ZdsPod {
  /** The Kubernetes uid. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Undefined when the agent does not have the namespace (any more): ztunnel keeps what it has. */
  readonly netnsFd: number | undefined;
  /** Where ztunnel finds what is captured of it; undefined: at its fixed ports. */
  readonly slot?: number | undefined;
}

export function encodeAdd({ uid, name, namespace, serviceAccount, slot }: ZdsPod): Uint8Array {
  const workloadInfo = { name, namespace, serviceAccount };
  const value = { uid, workloadInfo, ...(slot !== undefined && { steeringSlot: slot }) };
  return encode({ payload: { case: "add", value } });
}

export function encodeKeep(uid: string): Uint8Array {
  return encode({ payload: { case: "keep", value: { uid } } });
}

export function encodeDelete(uid: string): Uint8Array {
  return encode({ payload: { case: "del", value: { uid } } });
}

export function encodeSnapshotSent(): Uint8Array {
  return encode({ payload: { case: "snapshotSent", value: {} } });
}

/** Kubernetes bounds names so that a packet always fits. */
function encode(init: MessageInitShape<typeof WorkloadRequestSchema>): Uint8Array {
  const bytes = toBinary(WorkloadRequestSchema, create(WorkloadRequestSchema, init));
  assert(bytes.length <= PACKET_BYTES_MAX, "a pod's names fit into one packet");
  return bytes;
}

export type Decoded<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: string };

/** ztunnel's first packet. */
export function decodeHello(bytes: Uint8Array): Decoded<ZdsHello> {
  let hello: ZdsHello;
  try {
    hello = fromBinary(ZdsHelloSchema, bytes);
  } catch {
    return { ok: false, reason: "the first packet is not a ZdsHello" };
  }
  return hello.version === Version.V1
    ? { ok: true, value: hello }
    : { ok: false, reason: `protocol version ${hello.version} is not V1` };
}

/** Every later packet: an acknowledgement; the value is its error text, empty for success. */
export function decodeAck(bytes: Uint8Array): Decoded<string> {
  let response: WorkloadResponse;
  try {
    response = fromBinary(WorkloadResponseSchema, bytes);
  } catch {
    return { ok: false, reason: "a packet is not a WorkloadResponse" };
  }
  return response.payload.case === "ack"
    ? { ok: true, value: response.payload.value.error }
    : { ok: false, reason: "a response acknowledges nothing" };
}
