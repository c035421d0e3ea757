// Attachments of programs: to a cgroup, a network namespace, or an interface. A link ends when its last descriptor
// and pin are gone, or with what it is attached to; an update swaps the program without a gap.

import { bpf, Command, newAttr } from "./bpf-call.ts";
import { addressOf } from "./libc.ts";

/** enum bpf_attach_type of linux/bpf.h. */
export const AttachType = {
  SOCK_OPS: 3,
  CONNECT4: 10,
  CONNECT6: 11,
  SENDMSG4: 14,
  SENDMSG6: 15,
  RECVMSG4: 19,
  RECVMSG6: 20,
  GETPEERNAME4: 29,
  GETPEERNAME6: 30,
  SK_LOOKUP: 36,
  TCX_INGRESS: 46,
  TCX_EGRESS: 47,
} as const;

export type AttachTypeNumber = (typeof AttachType)[keyof typeof AttachType];

const INFO_BYTES = 64;
/** enum bpf_link_type. */
const LINK_TYPE_CGROUP = 3;
const LINK_TYPE_NETNS = 5;
const LINK_TYPE_TCX = 11;

/** What a link is attached to; the target is 0 when that is gone. */
export interface LinkInfo {
  readonly id: number;
  readonly programId: number;
  /** Inode of the namespace, id of the cgroup, or index of the interface. */
  readonly target: bigint;
}

/**
 * Attaches a program, behind others that are there. `target` is a descriptor of a cgroup's folder or a
 * namespace, or the index of an interface in this thread's namespace. Returns the link's descriptor.
 */
export function createLink(programFd: number, target: number, type: AttachTypeNumber): number {
  const attr = newAttr();
  attr.writeUInt32LE(programFd, 0);
  attr.writeUInt32LE(target, 4);
  attr.writeUInt32LE(type, 8);
  return bpf(Command.LINK_CREATE, `link of type ${type}`, attr);
}

/** Replaces the program of a link. Throws ENOLINK when what it was attached to is gone. */
export function updateLink(linkFd: number, programFd: number): void {
  const attr = newAttr();
  attr.writeUInt32LE(linkFd, 0);
  attr.writeUInt32LE(programFd, 4);
  bpf(Command.LINK_UPDATE, "link update", attr);
}

export function linkInfo(linkFd: number): LinkInfo {
  const info = objectInfo(linkFd);
  const type = info.readUInt32LE(0);
  const target =
    type === LINK_TYPE_CGROUP
      ? info.readBigUInt64LE(16)
      : type === LINK_TYPE_NETNS || type === LINK_TYPE_TCX
        ? BigInt(info.readUInt32LE(16))
        : 0n;
  return { id: info.readUInt32LE(4), programId: info.readUInt32LE(8), target };
}

/** How many programs are at an interface of this thread's namespace. Throws SystemError before Linux 6.6. */
export function attachedPrograms(index: number, type: AttachTypeNumber): number {
  const attr = newAttr();
  attr.writeUInt32LE(index, 0);
  attr.writeUInt32LE(type, 4);
  bpf(Command.PROG_QUERY, `programs of type ${type}`, attr);
  return attr.readUInt32LE(24);
}

/** The kernel's id of a program, as `linkInfo` tells it. */
export function programId(programFd: number): number {
  return objectInfo(programFd).readUInt32LE(4);
}

function objectInfo(fd: number): Buffer {
  const info = Buffer.alloc(INFO_BYTES);
  const attr = newAttr();
  attr.writeUInt32LE(fd, 0);
  attr.writeUInt32LE(info.length, 4);
  attr.writeBigUInt64LE(addressOf(info), 8);
  bpf(Command.OBJ_GET_INFO_BY_FD, "object info", attr);
  return info;
}
