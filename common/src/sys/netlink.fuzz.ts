// Fuzz target: whatever the kernel might answer, reading messages and attributes ends, with them or with a
// SystemError, and nothing reaches beyond the answer.

import { assert } from "../process/assert.ts";
import { SystemError } from "./libc.ts";
import { decodeAttributes, encodeAttribute, type NetlinkMessage, readMessages } from "./netlink.ts";

export const name = "netlink";

/** struct rtmsg. */
const STRUCT_BYTES = 12;

export function fuzz(data: Uint8Array): void {
  const messages: NetlinkMessage[] = [];
  try {
    readMessages(Buffer.from(data), messages, name);
    for (const { body } of messages) {
      const bytes = [...decodeAttributes(body, STRUCT_BYTES, name).values()].map((v) => v.length);
      const total = bytes.reduce((sum, length) => sum + length, 0);
      assert(total <= body.length, "attributes are part of their message");
    }
  } catch (error) {
    assert(error instanceof SystemError, "bad bytes are told as such");
  }
}

export function corpus(): Uint8Array[] {
  const attributes = Buffer.concat([
    encodeAttribute(4, Buffer.alloc(4, 1)),
    encodeAttribute(7, Buffer.alloc(5, 2)),
  ]);
  const message = Buffer.concat([Buffer.alloc(16 + STRUCT_BYTES), attributes]);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(24, 4);
  const failed = Buffer.alloc(20);
  failed.writeUInt32LE(20, 0);
  failed.writeUInt16LE(2, 4);
  failed.writeInt32LE(-17, 16);
  return [message, failed, Buffer.concat([message, message, failed])];
}
