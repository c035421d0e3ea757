// The kernel's own list of TCP sockets of a network namespace, and ending one of them (sock_diag(7)):
// what is asked when a decision about connections that nobody relays has changed. Synchronous, as every step
// inside a namespace is.

import type { SocketAddress } from "../net/socket-address.ts";
import { ipFromBytes } from "../net/ip.ts";
import { assert } from "../process/assert.ts";
import * as linux from "./constants.ts";
import { call, closeFd, SystemError } from "./libc.ts";
import { inNetns } from "./netns.ts";

/** linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h. */
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP = 0x300;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const HEADER_BYTES = 16;
const SOCKET_ID_BYTES = 48;
const REQUEST_BYTES = HEADER_BYTES + 8 + SOCKET_ID_BYTES;
const MESSAGE_BYTES = 72;
const SOCKET_ID_AT = 4;
const INET_DIAG_INFO = 2;
/** Of struct tcp_info. */
const BYTES_ACKED_AT = 120;
const BYTES_RECEIVED_AT = 128;

/** include/net/tcp_states.h. */
export const TcpState = {
  ESTABLISHED: 1,
  SYN_RECV: 3,
  FIN_WAIT1: 4,
  FIN_WAIT2: 5,
  CLOSE_WAIT: 8,
  LAST_ACK: 9,
  CLOSING: 11,
  NEW_SYN_RECV: 12,
} as const;

/** Connections with both ends, half-open and half-closed ones too: whatever could still carry a byte. */
const CONNECTED = Object.values(TcpState).reduce((mask, state) => mask | (1 << state), 0);

/** The kernel fills a page or two at a time; it never gives more than what fits. */
const ANSWER_BYTES = 64 * 1024;

/** A socket as the kernel names it. */
export interface TcpSocket {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly state: number;
  /** FINs count as a byte each. */
  readonly bytesReceived: number;
  readonly bytesAcked: number;
  readonly family: number;
  /** The kernel's struct inet_diag_sockid, its cookie included: never another socket's. */
  readonly id: Buffer;
}

/** The connections of a namespace, as of now. Throws SystemError. */
export function tcpConnections(netnsFd: number | undefined): TcpSocket[] {
  return withDiag(netnsFd, (fd) =>
    [linux.AF_INET, linux.AF_INET6].flatMap((family) => dump(fd, family)),
  );
}

/**
 * Ends connections: their owners get ECONNABORTED, their peers a reset. Returns how many there still were.
 * Throws SystemError: EPERM without CAP_NET_ADMIN, EOPNOTSUPP without CONFIG_INET_DIAG_DESTROY.
 */
export function destroyConnections(
  netnsFd: number | undefined,
  sockets: readonly TcpSocket[],
): number {
  if (sockets.length === 0) return 0;
  return withDiag(netnsFd, (fd) => sockets.filter((socket) => destroy(fd, socket)).length);
}

/** Whether this kernel can end connections; asked for one that cannot be. */
export function canDestroyConnections(): boolean {
  const nobody: TcpSocket = {
    local: UNSPECIFIED,
    remote: UNSPECIFIED,
    state: 0,
    bytesReceived: 0,
    bytesAcked: 0,
    family: linux.AF_INET,
    id: Buffer.alloc(SOCKET_ID_BYTES, 0),
  };
  try {
    destroyConnections(undefined, [nobody]);
    return true;
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  }
}

const UNSPECIFIED: SocketAddress = { ip: ipFromBytes(new Uint8Array(4))!, port: 0 };

function withDiag<T>(netnsFd: number | undefined, action: (fd: number) => T): T {
  const type = linux.SOCK_RAW | linux.SOCK_CLOEXEC;
  const fd = inNetns(netnsFd, () =>
    call("socket", "sock_diag", linux.AF_NETLINK, type, NETLINK_SOCK_DIAG),
  );
  try {
    return action(fd);
  } finally {
    closeFd(fd);
  }
}

function dump(fd: number, family: number): TcpSocket[] {
  const request = newRequest(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family);
  request[HEADER_BYTES + 2] = 1 << (INET_DIAG_INFO - 1);
  request.writeUInt32LE(CONNECTED, HEADER_BYTES + 4);
  call("write", "sock_diag", fd, request, request.length);
  const sockets: TcpSocket[] = [];
  const answer = Buffer.alloc(ANSWER_BYTES);
  for (let more = true; more;) {
    const length = call("read", "sock_diag", fd, answer, answer.length);
    more = readAnswer(answer.subarray(0, length), sockets);
  }
  return sockets;
}

function destroy(fd: number, { family, id }: TcpSocket): boolean {
  const request = newRequest(SOCK_DESTROY, NLM_F_ACK, family);
  request.set(id, HEADER_BYTES + 8);
  call("write", "sock_diag", fd, request, request.length);
  const answer = Buffer.alloc(ANSWER_BYTES);
  const length = call("read", "sock_diag", fd, answer, answer.length);
  try {
    readAnswer(answer.subarray(0, length), []);
    return true;
  } catch (error) {
    if (error instanceof SystemError && error.code === "ENOENT") return false;
    throw error;
  }
}

function newRequest(type: number, flags: number, family: number): Buffer {
  const request = Buffer.alloc(REQUEST_BYTES);
  request.writeUInt32LE(REQUEST_BYTES, 0);
  request.writeUInt16LE(type, 4);
  request.writeUInt16LE(NLM_F_REQUEST | flags, 6);
  request[HEADER_BYTES] = family;
  request[HEADER_BYTES + 1] = linux.IPPROTO_TCP;
  return request;
}

/**
 * Adds the sockets of one answer to `to`; false when it was the last. Throws SystemError with the error
 * that the kernel answers, EBADMSG when a message does not fit the answer.
 */
export function readAnswer(answer: Buffer, to: TcpSocket[]): boolean {
  for (let at = 0; at + HEADER_BYTES <= answer.length;) {
    const length = answer.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > answer.length) throw malformed();
    const type = answer.readUInt16LE(at + 4);
    const body = answer.subarray(at + HEADER_BYTES, at + length);
    if (type === NLMSG_DONE) return false;
    if (type === NLMSG_ERROR) {
      if (body.length < 4) throw malformed();
      const errno = -body.readInt32LE(0);
      if (errno !== 0) throw new SystemError("sock_diag", errno);
      return false;
    }
    if (type === SOCK_DIAG_BY_FAMILY) to.push(decodeSocket(body));
    at += align(length);
  }
  return true;
}

function decodeSocket(body: Buffer): TcpSocket {
  if (body.length < MESSAGE_BYTES) throw malformed();
  const family = body.readUInt8(0);
  const id = Buffer.from(body.subarray(SOCKET_ID_AT, SOCKET_ID_AT + SOCKET_ID_BYTES));
  const info = attribute(body, INET_DIAG_INFO);
  return {
    family,
    state: body.readUInt8(1),
    local: { ip: address(id, 4, family), port: id.readUInt16BE(0) },
    remote: { ip: address(id, 20, family), port: id.readUInt16BE(2) },
    bytesAcked: counter(info, BYTES_ACKED_AT),
    bytesReceived: counter(info, BYTES_RECEIVED_AT),
    id,
  };
}

function address(id: Buffer, offset: number, family: number) {
  const ip = ipFromBytes(id.subarray(offset, offset + (family === linux.AF_INET ? 4 : 16)));
  assert(ip !== undefined, "four or sixteen bytes are an address");
  return ip;
}

/** Older kernels have a shorter tcp_info, and half-open connections none. */
function counter(info: Buffer | undefined, offset: number): number {
  if (info === undefined || info.length < offset + 8) return 0;
  return Number(info.readBigUInt64LE(offset));
}

function attribute(body: Buffer, wanted: number): Buffer | undefined {
  for (let at = MESSAGE_BYTES; at + 4 <= body.length;) {
    const length = body.readUInt16LE(at);
    if (length < 4 || at + length > body.length) throw malformed();
    if (body.readUInt16LE(at + 2) === wanted) return body.subarray(at + 4, at + length);
    at += align(length);
  }
  return undefined;
}

function align(length: number): number {
  return (length + 3) & ~3;
}

const EBADMSG = 74;

function malformed(): SystemError {
  return new SystemError("sock_diag", EBADMSG);
}
