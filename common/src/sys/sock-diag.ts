// The kernel's own list of TCP sockets of a network namespace, and ending one of them (sock_diag(7)):
// what is asked when a decision about connections that nobody relays has changed. Synchronous, as every step
// inside a namespace is.

import type { SocketAddress } from "../net/socket-address.ts";
import { ipFromBytes } from "../net/ip.ts";
import { assert } from "../process/assert.ts";
import * as linux from "./constants.ts";
import { SystemError } from "./libc.ts";
import {
  decodeAttributes,
  malformed,
  Netlink,
  NetlinkFlag,
  type NetlinkMessage,
} from "./netlink.ts";

/** linux/sock_diag.h, linux/inet_diag.h. */
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const SOCKET_ID_BYTES = 48;
const REQUEST_BYTES = 8 + SOCKET_ID_BYTES;
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

const WHAT = "sock_diag";

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
  return withDiag(netnsFd, (diag) =>
    [linux.AF_INET, linux.AF_INET6].flatMap((family) => dump(diag, family)),
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
  return withDiag(netnsFd, (diag) => sockets.filter((socket) => destroy(diag, socket)).length);
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

function withDiag<T>(netnsFd: number | undefined, action: (diag: Netlink) => T): T {
  using diag = new Netlink(netnsFd, NETLINK_SOCK_DIAG, WHAT);
  return action(diag);
}

function dump(diag: Netlink, family: number): TcpSocket[] {
  const request = newRequest(family);
  request[2] = 1 << (INET_DIAG_INFO - 1);
  request.writeUInt32LE(CONNECTED, 4);
  return decodeSockets(diag.ask(SOCK_DIAG_BY_FAMILY, NetlinkFlag.DUMP, request));
}

function destroy(diag: Netlink, { family, id }: TcpSocket): boolean {
  const request = newRequest(family);
  request.set(id, 8);
  try {
    diag.ask(SOCK_DESTROY, NetlinkFlag.ACK, request);
    return true;
  } catch (error) {
    if (error instanceof SystemError && error.code === "ENOENT") return false;
    throw error;
  }
}

/** struct inet_diag_req_v2. */
function newRequest(family: number): Buffer {
  const request = Buffer.alloc(REQUEST_BYTES);
  request[0] = family;
  request[1] = linux.IPPROTO_TCP;
  return request;
}

/** The sockets that an answer tells of. Throws SystemError EBADMSG when one is too short. */
export function decodeSockets(messages: readonly NetlinkMessage[]): TcpSocket[] {
  return messages
    .filter(({ type }) => type === SOCK_DIAG_BY_FAMILY)
    .map(({ body }) => decodeSocket(body));
}

function decodeSocket(body: Buffer): TcpSocket {
  if (body.length < MESSAGE_BYTES) throw malformed(WHAT);
  const family = body.readUInt8(0);
  const id = Buffer.from(body.subarray(SOCKET_ID_AT, SOCKET_ID_AT + SOCKET_ID_BYTES));
  const info = decodeAttributes(body, MESSAGE_BYTES, WHAT).get(INET_DIAG_INFO);
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
