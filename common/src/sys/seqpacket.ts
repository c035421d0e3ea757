// AF_UNIX SOCK_SEQPACKET with descriptor passing, which Node does not offer: one packet is one message,
// at most PACKET_BYTES_MAX long, with at most one descriptor attached (ZDS, ztunnel §2.3).

import { rmSync, statSync } from "node:fs";
import { addressOf, call, callRaw, closeFd, lastErrno, SystemError } from "./libc.ts";
import {
  AF_UNIX,
  SCM_RIGHTS,
  SO_PEERCRED,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_SEQPACKET,
  SOL_SOCKET,
} from "./constants.ts";
import { type FdWatch, watchFd } from "./watch-fd.ts";

export const PACKET_BYTES_MAX = 1024;

const EAGAIN = 11;
const EINTR = 4;
const BACKLOG = 16;
const SUN_PATH_BYTES = 108;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSGHDR_BYTES = 56;
const CMSG_HEADER_BYTES = 16;
/** struct ucred: pid, uid, gid. */
const UCRED_BYTES = 12;
/** Room for more descriptors than allowed, so that surplus ones are seen, and closed. */
const CONTROL_BYTES = CMSG_HEADER_BYTES + 8 * 4;

export interface PacketHandlers {
  /** `fds` belong to the receiver, who must close them. */
  onPacket(packet: Buffer, fds: readonly number[]): void;
  /** The peer left, or broke the rules; the socket is closed. Called once. */
  onClose(reason: string): void;
}

export class SeqpacketSocket {
  readonly #fd: number;
  readonly #handlers: PacketHandlers;
  readonly #watch: FdWatch;

  constructor(fd: number, handlers: PacketHandlers) {
    this.#fd = fd;
    this.#handlers = handlers;
    this.#watch = watchFd(fd, () => this.#onReadable());
  }

  get closed(): boolean {
    return this.#watch.closed;
  }

  /** The process at the other end when it connected, as this process numbers it; 0 when it cannot be seen. */
  get peerPid(): number {
    const credentials = Buffer.alloc(UCRED_BYTES);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(UCRED_BYTES);
    call("getsockopt", "SO_PEERCRED", this.#fd, SOL_SOCKET, SO_PEERCRED, credentials, length);
    return credentials.readInt32LE(0);
  }

  /** Sends one packet. Throws SystemError (EPIPE when the peer left, EAGAIN when it does not read). */
  send(packet: Uint8Array, fd?: number): void {
    if (this.closed) throw new SystemError("sendmsg", 32, "on a closed socket");
    const control = fd === undefined ? undefined : encodeRights(fd);
    const message = messageHeader(packet, control);
    call("sendmsg", "", this.#fd, message, MSG_NOSIGNAL);
  }

  close(): void {
    this.#watch.close();
  }

  #onReadable(): void {
    while (!this.closed) {
      const received = receive(this.#fd);
      if (received === "nothing") return;
      if (typeof received === "string") return this.#end(received);
      this.#handlers.onPacket(received.packet, received.fds);
    }
  }

  #end(reason: string): void {
    this.close();
    this.#handlers.onClose(reason);
  }
}

type Received =
  | { readonly packet: Buffer; readonly fds: readonly number[] }
  | "nothing"
  | (string & {});

function receive(fd: number): Received {
  const packet = Buffer.alloc(PACKET_BYTES_MAX);
  const control = Buffer.alloc(CONTROL_BYTES);
  const message = messageHeader(packet, control);
  const length = callRaw("recvmsg", fd, message, MSG_CMSG_CLOEXEC);
  if (length < 0) {
    const errno = lastErrno();
    return errno === EAGAIN || errno === EINTR
      ? "nothing"
      : new SystemError("recvmsg", errno).message;
  }
  const fds = decodeRights(control, Number(message.readBigUInt64LE(40)));
  const flags = message.readInt32LE(48);
  if (length === 0 && fds.length === 0) return "the peer closed the connection";
  if (flags & (MSG_TRUNC | MSG_CTRUNC)) {
    for (const received of fds) closeFd(received);
    return `a packet exceeded ${PACKET_BYTES_MAX} bytes or carried too many descriptors`;
  }
  return { packet: packet.subarray(0, length), fds };
}

/** Buffers a msghdr points into; kept reachable by the header for the length of the call. */
const pinned = new WeakMap<Buffer, unknown>();

/** struct msghdr with one iovec (x86_64 and arm64 layout). */
function messageHeader(data: Uint8Array, control: Buffer | undefined): Buffer {
  const iovec = Buffer.alloc(16);
  iovec.writeBigUInt64LE(data.length === 0 ? 0n : addressOf(data), 0);
  iovec.writeBigUInt64LE(BigInt(data.length), 8);
  const header = Buffer.alloc(MSGHDR_BYTES);
  header.writeBigUInt64LE(addressOf(iovec), 16);
  header.writeBigUInt64LE(1n, 24);
  if (control !== undefined) {
    header.writeBigUInt64LE(addressOf(control), 32);
    header.writeBigUInt64LE(BigInt(control.length), 40);
  }
  pinned.set(header, [iovec, data, control]);
  return header;
}

function encodeRights(fd: number): Buffer {
  const control = Buffer.alloc(CMSG_HEADER_BYTES + 8);
  control.writeBigUInt64LE(BigInt(CMSG_HEADER_BYTES + 4), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(fd, CMSG_HEADER_BYTES);
  return control;
}

function decodeRights(control: Buffer, length: number): number[] {
  if (length < CMSG_HEADER_BYTES) return [];
  const end = Math.min(Number(control.readBigUInt64LE(0)), length);
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return [];
  const fds: number[] = [];
  for (let at = CMSG_HEADER_BYTES; at + 4 <= end; at += 4) fds.push(control.readInt32LE(at));
  return fds;
}

/** Connects to a listening path. Throws SystemError: ENOENT, ECONNREFUSED, … */
export function connectSeqpacket(path: string, handlers: PacketHandlers): SeqpacketSocket {
  const fd = openSocket();
  try {
    const address = unixAddress(path);
    call("connect", path, fd, address, address.length);
    return new SeqpacketSocket(fd, handlers);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

export interface SeqpacketListener {
  close(): void;
}

/**
 * Listens at `path`, replacing the socket file of whoever listened there before; hands over the
 * descriptor of each connection. Closing leaves the file alone when a successor has replaced it.
 */
export function listenSeqpacket(
  path: string,
  onConnection: (fd: number) => void,
): SeqpacketListener {
  const fd = openSocket();
  let inode: bigint | undefined;
  try {
    rmSync(path, { force: true });
    const address = unixAddress(path);
    call("bind", path, fd, address, address.length);
    call("listen", path, fd, BACKLOG);
    inode = inodeOf(path);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  const watch = watchFd(fd, () => {
    while (!watch.closed) {
      const accepted = callRaw("accept4", fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (accepted < 0) break;
      onConnection(accepted);
    }
  });
  return {
    close: () => {
      if (watch.closed) return;
      watch.close();
      if (inodeOf(path) === inode) rmSync(path, { force: true });
    },
  };
}

/** Undefined when there is no such file. */
function inodeOf(path: string): bigint | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}

function openSocket(): number {
  return call("socket", "SEQPACKET", AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

function unixAddress(path: string): Buffer {
  const bytes = Buffer.from(path);
  if (bytes.length >= SUN_PATH_BYTES) {
    throw new Error(`socket path is longer than ${SUN_PATH_BYTES - 1} bytes: ${path}`);
  }
  const address = Buffer.alloc(2 + bytes.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  return address;
}
