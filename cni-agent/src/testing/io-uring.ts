// connect() and accept() by io_uring (io_uring(7)), which no system call of the caller's makes: a thread of the
// kernel does (IORING_SETUP_SQPOLL).

import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { addressOf, callNumber, closeFd, mapMemory, pageBytes } from "@ambit/common/sys/libc.ts";
import { encodeSockaddr } from "@ambit/common/sys/sockaddr.ts";

/** The same numbers on all architectures. */
const IO_URING_SETUP = 425;
const IO_URING_ENTER = 426;
const ENTER_SQ_WAKEUP = 2;
const ENTRIES = 1;
/** struct io_uring_params, and some of its fields: offsets in the mapped ring are told in it. */
const PARAMS_BYTES = 120;
const PARAMS = { flags: 8, sqTail: 44, sqArray: 64, cqTail: 84, cqes: 100 };
const SETUP_SQPOLL = 2;
const SQES_OFFSET = 0x1000_0000;
/** struct io_uring_sqe. */
const SQE = { bytes: 64, opcode: 0, fd: 4, addressBytes: 8, address: 16 };
const OP_ACCEPT = 13;
const OP_CONNECT = 16;

/** Resolves with connect()'s errno, or 0. */
export async function connectByRing(socketFd: number, to: SocketAddress): Promise<number> {
  return -(await byRing(OP_CONNECT, socketFd, encodeSockaddr(to)));
}

/** Resolves with the accepted connection's descriptor; negative: an errno. */
export function acceptByRing(listenerFd: number): Promise<number> {
  return byRing(OP_ACCEPT, listenerFd);
}

async function byRing(opcode: number, socketFd: number, name?: Buffer): Promise<number> {
  const params = Buffer.alloc(PARAMS_BYTES);
  params.writeUInt32LE(SETUP_SQPOLL, PARAMS.flags);
  const fd = callNumber(IO_URING_SETUP, "io_uring_setup", ENTRIES, addressOf(params));
  const at = (field: number) => params.readUInt32LE(field);
  const ring = mapMemory(fd, 0, pageBytes(), "write");
  const sqes = mapMemory(fd, SQES_OFFSET, pageBytes(), "write");
  try {
    const sqe = Buffer.from(sqes.bytes);
    sqe.writeUInt8(opcode, SQE.opcode);
    sqe.writeInt32LE(socketFd, SQE.fd);
    if (name !== undefined) {
      sqe.writeBigUInt64LE(BigInt(name.length), SQE.addressBytes);
      // Behind the entry, where it stays.
      sqe.set(name, SQE.bytes);
      sqe.writeBigUInt64LE(addressOf(sqe) + BigInt(SQE.bytes), SQE.address);
    }
    const words = new Int32Array(ring.bytes);
    words[at(PARAMS.sqArray) / 4] = 0;
    Atomics.store(words, at(PARAMS.sqTail) / 4, 1);
    callNumber(IO_URING_ENTER, "io_uring_enter", fd, 0, 0, ENTER_SQ_WAKEUP);
    while (Atomics.load(words, at(PARAMS.cqTail) / 4) === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    // struct io_uring_cqe: eight bytes of the caller's, then the result.
    return words[at(PARAMS.cqes) / 4 + 2]!;
  } finally {
    ring.unmap();
    sqes.unmap();
    closeFd(fd);
  }
}
