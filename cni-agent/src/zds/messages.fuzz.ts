// Fuzz target: whatever ztunnel sends, decoding answers and never throws.

import { create, toBinary } from "@bufbuild/protobuf";
import { Version, WorkloadResponseSchema, ZdsHelloSchema } from "@ambit/api/gen/istio/zds_pb.ts";
import { assert } from "@ambit/common/process/assert.ts";
import { decodeAck, decodeHello } from "./messages.ts";

export const name = "zds-messages";

export function fuzz(data: Uint8Array): void {
  const hello = decodeHello(data);
  assert(hello.ok || hello.reason.length > 0, "a refused hello has a reason");
  const ack = decodeAck(data);
  assert(ack.ok ? typeof ack.value === "string" : ack.reason.length > 0, "an ack is text");
}

export function corpus(): Uint8Array[] {
  const ack = (error: string) =>
    toBinary(
      WorkloadResponseSchema,
      create(WorkloadResponseSchema, { payload: { case: "ack", value: { error } } }),
    );
  const hello = toBinary(ZdsHelloSchema, create(ZdsHelloSchema, { version: Version.V1 }));
  return [hello, ack(""), ack("failure to start proxy: address in use")];
}
