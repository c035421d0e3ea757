// Sockets as applications make them, for tests: with options that Node does not offer, connected in one
// call, and refused in the same call when the kernel refuses.

import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import net from "node:net";
import { type Ip, ipFamily } from "@ambit/common/net/ip.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import { call, callRaw, closeFd, lastErrno, SystemError } from "@ambit/common/sys/libc.ts";
import { inNetns } from "@ambit/common/sys/netns.ts";
import { encodeSockaddr } from "@ambit/common/sys/sockaddr.ts";
import { udpSocket } from "@ambit/common/sys/sockets.ts";
import type { TestPlace } from "./test-network.ts";

const EINPROGRESS = 115;
const TCP = 6;
export const MPTCP = 262;

export interface AppSocketOptions {
  /** Write IPv4 destinations in their IPv4-mapped form, on an AF_INET6 socket. */
  readonly mapped?: boolean;
  readonly protocol?: number;
  /** Before connect(). */
  prepare?(fd: number): void;
}

/** A socket of the place that is not connected yet; the caller closes it. */
export function openAppSocket(place: TestPlace, ip: Ip, options: AppSocketOptions = {}): number {
  const family = options.mapped || ipFamily(ip) === 6 ? linux.AF_INET6 : linux.AF_INET;
  const type = linux.SOCK_STREAM | linux.SOCK_NONBLOCK | linux.SOCK_CLOEXEC;
  return inNetns(place.netns.fd, () => call("socket", "", family, type, options.protocol ?? TCP));
}

/** connect() on a socket of openAppSocket. Throws SystemError, EPERM for instance. */
export function connectFd(fd: number, ip: Ip, port: number, mapped = false): void {
  const address = encodeSockaddr({ ip, port }, mapped ? 6 : ipFamily(ip));
  if (callRaw("connect", fd, address, address.length) === 0) return;
  if (lastErrno() !== EINPROGRESS) throw new SystemError("connect", lastErrno());
}

/** connect() to AF_UNSPEC: the socket may connect again. */
export function disconnectFd(fd: number): void {
  const unspecified = Buffer.alloc(16);
  call("connect", "AF_UNSPEC", fd, unspecified, unspecified.length);
}

/** A connected, or just connecting, socket of an application. Throws what connect() throws. */
export function connectApp(
  place: TestPlace,
  ip: Ip,
  port: number,
  options: AppSocketOptions = {},
): net.Socket {
  const fd = openAppSocket(place, ip, options);
  try {
    options.prepare?.(fd);
    connectFd(fd, ip, port, options.mapped);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return wrap(fd);
}

/** Takes over a connected descriptor. */
export function wrap(fd: number): net.Socket {
  const socket = new net.Socket({ fd, allowHalfOpen: true });
  socket.on("error", () => {});
  return socket;
}

export function setOption(fd: number, level: number, name: number, value: number | Buffer): void {
  const bytes = typeof value === "number" ? int(value) : value;
  call("setsockopt", `${level}/${name}`, fd, level, name, bytes, bytes.length);
}

export function getOption(fd: number, level: number, name: number): number {
  const value = int(0);
  call("getsockopt", `${level}/${name}`, fd, level, name, value, int(4));
  return value.readUInt32LE();
}

export function bindTo(fd: number, ip: Ip, port: number): void {
  const address = encodeSockaddr({ ip, port });
  call("bind", `${ip}:${port}`, fd, address, address.length);
}

/** A listening socket of the place, as an application makes it; the caller closes it. */
export function listenApp(place: TestPlace, ip: Ip, port: number, protocol = TCP): number {
  const fd = openAppSocket(place, ip, { protocol });
  bindTo(fd, ip, port);
  call("listen", `${ip}:${port}`, fd, BACKLOG);
  return fd;
}

const BACKLOG = 16;
const SO_BINDTODEVICE = 25;

/** Needs no privilege, and decides how packets are routed. */
export function bindToDevice(fd: number, device = "eth0"): void {
  setOption(fd, linux.SOL_SOCKET, SO_BINDTODEVICE, Buffer.from(`${device}\0`));
}

/** A UDP socket of the place, for use with dgram. */
export async function udpAt(
  place: TestPlace,
  ip: Ip,
  port: number,
  mark?: number,
): Promise<UdpSocket> {
  const options = { address: { ip, port }, ...(mark !== undefined && { mark }) };
  const socket = createSocket(ip.includes(":") ? "udp6" : "udp4");
  const listening = once(socket, "listening");
  socket.bind({ fd: udpSocket(place.netns.fd, options) });
  await listening;
  return socket;
}

function int(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}
