// bpf(2) itself: map elements, pins and links, by the kernel's union bpf_attr. Programs and maps are made
// by libbpf (bpf-object.ts); everything afterwards needs no library.

import { arch } from "node:process";
import { callBpf } from "./libc.ts";

/** Commands of linux/bpf.h. */
export const Command = {
  MAP_LOOKUP_ELEM: 1,
  MAP_UPDATE_ELEM: 2,
  MAP_DELETE_ELEM: 3,
  MAP_GET_NEXT_KEY: 4,
  OBJ_PIN: 6,
  OBJ_GET: 7,
  OBJ_GET_INFO_BY_FD: 15,
  PROG_QUERY: 16,
  MAP_LOOKUP_BATCH: 24,
  LINK_CREATE: 28,
  LINK_UPDATE: 29,
} as const;

export type BpfCommand = (typeof Command)[keyof typeof Command];

/** As large as any member of the union that is used here. */
const ATTR_BYTES = 128;

const SYSCALL_NUMBERS: Readonly<Record<string, number>> = { x64: 321, arm64: 280 };

/** A zeroed attr, to be filled in at the kernel's offsets. */
export function newAttr(): Buffer {
  return Buffer.alloc(ATTR_BYTES);
}

/**
 * Calls bpf(2); `what` names the object in errors. Throws SystemError, among others EPERM without
 * CAP_BPF. Buffers whose addresses are in `attr` must be alive: the caller holds them.
 */
export function bpf(command: BpfCommand, what: string, attr: Buffer): number {
  const number = SYSCALL_NUMBERS[arch];
  if (number === undefined) throw new Error(`bpf(2) has no known number on ${arch}`);
  return callBpf(number, command, what, attr);
}
