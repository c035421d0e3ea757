// Netlink conversations (netlink(7)): one request, the kernel's answers, in the namespace in which it was
// opened. Synchronous, as every step inside a namespace is. Knows messages, not what they mean.

import * as linux from "./constants.ts";
import { call, closeFd, SystemError } from "./libc.ts";
import { inNetns } from "./netns.ts";

/** linux/netlink.h. */
export const NetlinkFlag = {
  ACK: 0x4,
  REPLACE: 0x100,
  DUMP: 0x300,
  EXCL: 0x200,
  CREATE: 0x400,
} as const;

const NLM_F_REQUEST = 0x1;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
/** struct nlmsghdr. */
const HEADER_BYTES = 16;
/** struct nlattr. */
const ATTRIBUTE_HEADER_BYTES = 4;
/** Of an attribute's type: two bits are flags. */
const ATTRIBUTE_TYPE_MASK = 0x3fff;
const EBADMSG = 74;

/** The kernel fills a page or two at a time; it never gives more than what fits. */
const ANSWER_BYTES = 64 * 1024;

export interface NetlinkMessage {
  readonly type: number;
  readonly body: Buffer;
}

export class Netlink implements Disposable {
  readonly #fd: number;
  readonly #what: string;

  /** `what` names the conversation in errors. Throws SystemError. */
  constructor(netnsFd: number | undefined, protocol: number, what: string) {
    const type = linux.SOCK_RAW | linux.SOCK_CLOEXEC;
    this.#what = what;
    this.#fd = inNetns(netnsFd, () => call("socket", what, linux.AF_NETLINK, type, protocol));
  }

  /** Sends a request with ACK or DUMP among its flags; returns what is answered. Throws SystemError. */
  ask(type: number, flags: number, body: Uint8Array): NetlinkMessage[] {
    const request = encodeMessage(type, NLM_F_REQUEST | flags, body);
    call("write", this.#what, this.#fd, request, request.length);
    const messages: NetlinkMessage[] = [];
    const answer = Buffer.alloc(ANSWER_BYTES);
    for (let more = true; more;) {
      const length = call("read", this.#what, this.#fd, answer, answer.length);
      // A copy: the next answer is read into the same bytes.
      more = readMessages(Buffer.from(answer.subarray(0, length)), messages, this.#what);
    }
    return messages;
  }

  [Symbol.dispose](): void {
    closeFd(this.#fd);
  }
}

function encodeMessage(type: number, flags: number, body: Uint8Array): Buffer {
  const message = Buffer.alloc(HEADER_BYTES + body.length);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(type, 4);
  message.writeUInt16LE(flags, 6);
  message.set(body, HEADER_BYTES);
  return message;
}

/**
 * Adds the messages of one answer to `to`; false when it was the last. Throws SystemError with the error
 * that the kernel answers, EBADMSG when a message does not fit the answer.
 */
export function readMessages(answer: Buffer, to: NetlinkMessage[], what: string): boolean {
  for (let at = 0; at + HEADER_BYTES <= answer.length;) {
    const length = answer.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > answer.length) throw malformed(what);
    const type = answer.readUInt16LE(at + 4);
    const body = answer.subarray(at + HEADER_BYTES, at + length);
    if (type === NLMSG_DONE) return false;
    if (type === NLMSG_ERROR) {
      if (body.length < 4) throw malformed(what);
      const errno = -body.readInt32LE(0);
      if (errno !== 0) throw new SystemError(what, errno);
      return false;
    }
    to.push({ type, body });
    at += align(length);
  }
  return true;
}

/** One attribute, padded. */
export function encodeAttribute(type: number, value: Uint8Array): Buffer {
  const length = ATTRIBUTE_HEADER_BYTES + value.length;
  const bytes = Buffer.alloc(align(length));
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(value, ATTRIBUTE_HEADER_BYTES);
  return bytes;
}

/** The attributes behind a message's own structure. Throws SystemError EBADMSG. */
export function decodeAttributes(body: Buffer, from: number, what: string): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  for (let at = from; at + ATTRIBUTE_HEADER_BYTES <= body.length;) {
    const length = body.readUInt16LE(at);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > body.length) throw malformed(what);
    const type = body.readUInt16LE(at + 2) & ATTRIBUTE_TYPE_MASK;
    attributes.set(type, body.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length));
    at += align(length);
  }
  return attributes;
}

/** An attribute of 32 bits. */
export function attributeNumber(value: Buffer | undefined): number | undefined {
  return value === undefined || value.length < 4 ? undefined : value.readUInt32LE();
}

function align(length: number): number {
  return (length + 3) & ~3;
}

export function malformed(what: string): SystemError {
  return new SystemError(what, EBADMSG);
}
