// Sockets that Node cannot make itself: in another network namespace, marked, transparent, or bound
// to an address that is not ours. The result is always a plain descriptor for net or dgram.

import net from "node:net";
import { type Ip, type IpFamily, ipFamily } from "../net/ip.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { call, callRaw, closeFd, lastErrno, SystemError } from "./libc.ts";
import * as linux from "./constants.ts";
import { inNetns } from "./netns.ts";
import { decodeSockaddr, encodeSockaddr, putSockaddr, SOCKADDR_BYTES_MAX } from "./sockaddr.ts";
import { nextSpoofedPort } from "./spoofed-ports.ts";

export type Transparency = "required" | "best-effort" | "never";

export interface ListenOptions {
  readonly address: SocketAddress;
  readonly mark?: number;
  /** IP_TRANSPARENT: needed to accept for, and answer from, addresses that are not local. */
  readonly transparent?: Transparency;
  /** SO_REUSEPORT: a second process may bind the same port while the first one drains. */
  readonly reusePort?: boolean;
  readonly backlog?: number;
  /** For the sockets that are accepted: they inherit it, and TCP_NODELAY. */
  readonly keepalive?: Keepalive;
}

/** As ztunnel: long enough for bursts, short enough to shed when the process stalls. */
const BACKLOG = 1024;

/** What the kernel reads or writes during one call. Slow: not in V8's heap, whence it would be moved. */
const intBuffer = Buffer.allocUnsafeSlow(4);
const addressBuffer = Buffer.allocUnsafeSlow(SOCKADDR_BYTES_MAX);

/** A listening TCP descriptor for `net.Server.listen({ fd })`. `::` is dual-stack. */
export function listenTcp(netnsFd: number | undefined, options: ListenOptions): number {
  const { address } = options;
  return inNetns(netnsFd, () => {
    const family = ipFamily(address.ip);
    const fd = openSocket(family, linux.SOCK_STREAM);
    try {
      setInt(fd, linux.SOL_SOCKET, linux.SO_REUSEADDR, 1);
      setInt(fd, linux.IPPROTO_TCP, linux.TCP_NODELAY, 1);
      if (options.keepalive !== undefined) setKeepalive(fd, options.keepalive);
      prepareListener(fd, family, options);
      call("bind", `port ${address.port}`, fd, encodeSockaddr(address), sockaddrLength(family));
      call("listen", `port ${address.port}`, fd, options.backlog ?? BACKLOG);
      return fd;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  });
}

/** A bound UDP descriptor for `dgram.Socket.bind({ fd })`. */
export function udpSocket(netnsFd: number | undefined, options: ListenOptions): number {
  const { address } = options;
  return inNetns(netnsFd, () => {
    const family = ipFamily(address.ip);
    const fd = openSocket(family, linux.SOCK_DGRAM);
    try {
      prepareListener(fd, family, options);
      call("bind", `UDP port ${address.port}`, fd, encodeSockaddr(address), sockaddrLength(family));
      return fd;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  });
}

/** Nobody listens there; what a socket is connected to, it hears from alone. */
const NOBODY = { 4: { ip: "127.0.0.1" as Ip, port: 1 }, 6: { ip: "::1" as Ip, port: 1 } } as const;

/**
 * The kernel gives a loopback UDP socket no new datagrams; those that wait in it can still be read, and
 * anything can still be sent. Sockets that share its port get the new ones. Never throws.
 */
export function stopReceiving(fd: number, ip: Ip): void {
  const family = ipFamily(ip);
  callRaw("connect", fd, encodeSockaddr(NOBODY[family]), sockaddrLength(family));
}

function prepareListener(fd: number, family: IpFamily, options: ListenOptions): void {
  if (options.reusePort) setInt(fd, linux.SOL_SOCKET, linux.SO_REUSEPORT, 1);
  if (options.mark !== undefined) setInt(fd, linux.SOL_SOCKET, linux.SO_MARK, options.mark);
  if (family === 6) {
    setInt(fd, linux.SOL_IPV6, linux.IPV6_V6ONLY, options.address.ip === "::" ? 0 : 1);
  }
  const transparent = options.transparent ?? "never";
  if (transparent === "never") return;
  try {
    setTransparent(fd, family);
  } catch (error) {
    if (transparent === "required") throw error;
  }
}

export interface DialOptions {
  readonly destination: SocketAddress;
  readonly mark?: number;
  /** Connect from this address although it may not be ours; when that fails, from our own. */
  readonly spoof?: SocketAddress;
  readonly timeoutMs: number;
  readonly keepalive?: Keepalive;
}

export interface Keepalive {
  readonly timeSeconds: number;
  readonly intervalSeconds: number;
  readonly retries: number;
  /** TCP_USER_TIMEOUT as time + retries × interval. */
  readonly userTimeout?: boolean;
}

export interface Dialed {
  readonly socket: net.Socket;
  /** False when the address to spoof could not be bound; the peer then sees our own. */
  readonly spoofed: boolean;
}

/**
 * Connects from inside a namespace. The socket comes paused, half-open allowed, without delay.
 * Rejects with Node's error codes (ECONNREFUSED, …) and ETIMEDOUT after `timeoutMs`.
 */
export function connectTcp(netnsFd: number | undefined, options: DialOptions): Promise<Dialed> {
  const { fd, spoofed } = inNetns(netnsFd, () => openForDial(options));
  const socket = new net.Socket({
    fd,
    allowHalfOpen: true,
    manualStart: true,
  } as net.SocketConstructorOpts);
  const { destination, timeoutMs } = options;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const error = new Error(`connect to ${destination.ip}:${destination.port} timed out`);
      socket.destroy(Object.assign(error, { code: "ETIMEDOUT" }));
    }, timeoutMs);
    const onError = (error: Error) => {
      clearTimeout(timer);
      reject(error);
    };
    socket.once("error", onError);
    socket.pause();
    socket.connect({ host: destination.ip, port: destination.port }, () => {
      clearTimeout(timer);
      socket.off("error", onError);
      resolve({ socket, spoofed });
    });
  });
}

function openForDial(options: DialOptions): { fd: number; spoofed: boolean } {
  const family = ipFamily(options.destination.ip);
  const fd = openDialSocket(family, options);
  return { fd, spoofed: options.spoof !== undefined && bindSpoofed(fd, options.spoof, family) };
}

/** A TCP descriptor to connect with, in this thread's namespace. Throws SystemError. */
export function openDialSocket(
  family: IpFamily,
  options: Pick<DialOptions, "mark" | "keepalive">,
): number {
  const fd = openSocket(family, linux.SOCK_STREAM);
  try {
    setInt(fd, linux.IPPROTO_TCP, linux.TCP_NODELAY, 1);
    if (options.mark !== undefined) setInt(fd, linux.SOL_SOCKET, linux.SO_MARK, options.mark);
    if (options.keepalive !== undefined) setKeepalive(fd, options.keepalive);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** How many ports are tried that the address's owner does not use: when so many are taken, most are. */
const SPOOFED_PORTS_TRIED = 4;

/**
 * Binds to an address that is not ours; where port 0 is asked for, by one that its owner hardly uses
 * (spoofed-ports.ts). When that cannot be, by any that connect() finds. False when the kernel or our
 * capabilities do not allow it.
 */
export function bindSpoofed(fd: number, source: SocketAddress, family: IpFamily): boolean {
  const { ip, port } = source;
  if (ipFamily(ip) !== family) return false;
  try {
    setTransparent(fd, family);
    const freebind =
      family === 4 ? [linux.SOL_IP, linux.IP_FREEBIND] : [linux.SOL_IPV6, linux.IPV6_FREEBIND];
    setInt(fd, freebind[0]!, freebind[1]!, 1);
    for (let tried = 0; tried < SPOOFED_PORTS_TRIED; tried++) {
      if (!bindTo(fd, ip, port === 0 ? nextSpoofedPort() : port)) continue;
      // Not before: two of ours would share the port. Now applications that do the same may listen on it.
      setInt(fd, linux.SOL_SOCKET, linux.SO_REUSEADDR, 1);
      return true;
    }
    setInt(fd, linux.SOL_IP, linux.IP_BIND_ADDRESS_NO_PORT, 1);
  } catch {
    return false;
  }
  return bindTo(fd, ip, 0);
}

function bindTo(fd: number, ip: Ip, port: number): boolean {
  const length = putSockaddr({ ip, port }, ipFamily(ip), addressBuffer);
  return callRaw("bind", fd, addressBuffer, length) === 0;
}

export function setKeepalive(fd: number, keepalive: Keepalive): void {
  setInt(fd, linux.SOL_SOCKET, linux.SO_KEEPALIVE, 1);
  setInt(fd, linux.IPPROTO_TCP, linux.TCP_KEEPIDLE, keepalive.timeSeconds);
  setInt(fd, linux.IPPROTO_TCP, linux.TCP_KEEPINTVL, keepalive.intervalSeconds);
  setInt(fd, linux.IPPROTO_TCP, linux.TCP_KEEPCNT, keepalive.retries);
  if (keepalive.userTimeout) {
    const seconds = keepalive.timeSeconds + keepalive.retries * keepalive.intervalSeconds;
    setInt(fd, linux.IPPROTO_TCP, linux.TCP_USER_TIMEOUT, seconds * 1000);
  }
}

/** Sets SO_MARK; needs CAP_NET_ADMIN. */
export function setMark(fd: number, mark: number): void {
  setInt(fd, linux.SOL_SOCKET, linux.SO_MARK, mark);
}

/**
 * Where a redirected connection was going (SO_ORIGINAL_DST, then its IPv6 twin). For one that was not
 * redirected it is the local address where connections are tracked, and undefined where they are not:
 * either way the local address is the destination.
 */
export function originalDst(fd: number): SocketAddress | undefined {
  return (
    readOriginalDst(fd, linux.SOL_IP, linux.SO_ORIGINAL_DST) ??
    readOriginalDst(fd, linux.SOL_IPV6, linux.IP6T_SO_ORIGINAL_DST)
  );
}

function readOriginalDst(fd: number, level: number, name: number): SocketAddress | undefined {
  intBuffer.writeUInt32LE(SOCKADDR_BYTES_MAX);
  if (callRaw("getsockopt", fd, level, name, addressBuffer, intBuffer) !== 0) return undefined;
  return decodeSockaddr(addressBuffer);
}

/** Our end of a connection, or the peer's; undefined when it is gone already. */
export function nameOf(fd: number, end: "local" | "peer"): SocketAddress | undefined {
  const name = end === "local" ? "getsockname" : "getpeername";
  intBuffer.writeUInt32LE(SOCKADDR_BYTES_MAX);
  return callRaw(name, fd, addressBuffer, intBuffer) === 0
    ? decodeSockaddr(addressBuffer)
    : undefined;
}

/**
 * Starts to connect. 0 when that is through already, as it is to most addresses of this machine, else
 * errno: EINPROGRESS while the peer is waited for.
 */
export function startConnect(fd: number, destination: SocketAddress): number {
  const length = putSockaddr(destination, ipFamily(destination.ip), addressBuffer);
  if (callRaw("connect", fd, addressBuffer, length) === 0) return 0;
  if (lastErrno() !== linux.EINPROGRESS) return lastErrno();
  // A handshake with this machine is finished as the first call returns: the second sees it.
  if (callRaw("connect", fd, addressBuffer, length) === 0) return 0;
  return lastErrno() === linux.EALREADY ? linux.EINPROGRESS : lastErrno();
}

/** The kernel's number for the namespace a socket lives in. */
export function netnsCookie(fd: number): bigint {
  return cookieOption(fd, "SO_NETNS_COOKIE", linux.SO_NETNS_COOKIE);
}

/** The kernel's number for a socket, which no other has while the kernel runs. Throws SystemError. */
export function socketCookie(fd: number): bigint {
  return cookieOption(fd, "SO_COOKIE", linux.SO_COOKIE);
}

function cookieOption(fd: number, name: string, option: number): bigint {
  const cookie = Buffer.alloc(8);
  intBuffer.writeUInt32LE(8);
  call("getsockopt", name, fd, linux.SOL_SOCKET, option, cookie, intBuffer);
  return cookie.readBigUInt64LE();
}

/**
 * A port that is free in the namespace, kept for those who will listen on it with `reusePort` until
 * `fd` is closed. Throws SystemError.
 */
export function reservePort(netnsFd: number | undefined, ip: Ip): { fd: number; port: number } {
  const family = ipFamily(ip);
  return inNetns(netnsFd, () => {
    const fd = openSocket(family, linux.SOCK_STREAM);
    try {
      prepareListener(fd, family, { address: { ip, port: 0 }, reusePort: true });
      const address = encodeSockaddr({ ip, port: 0 });
      call("bind", "any free port", fd, address, sockaddrLength(family));
      return { fd, port: localPort(fd) };
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  });
}

/** A socket's mark; one that was accepted may have it from the packet that opened it. Throws SystemError. */
export function socketMark(fd: number): number {
  const mark = Buffer.alloc(4);
  intBuffer.writeUInt32LE(4);
  call("getsockopt", "SO_MARK", fd, linux.SOL_SOCKET, linux.SO_MARK, mark, intBuffer);
  return mark.readUInt32LE();
}

/** The port a socket is bound to. Throws SystemError. */
export function localPort(fd: number): number {
  const address = Buffer.alloc(SOCKADDR_BYTES_MAX);
  intBuffer.writeUInt32LE(address.length);
  call("getsockname", "", fd, address, intBuffer);
  // sockaddr_in and sockaddr_in6 have it at the same place.
  return address.readUInt16BE(2);
}

/** The descriptor of a Node socket. Node has no public accessor; this is the one place that reads it. */
export function socketFd(socket: net.Socket): number {
  const { _handle: handle } = socket as unknown as { _handle: { fd: number } | null };
  if (handle === null || handle.fd < 0) throw new SystemError("socketFd", 9, "socket is closed");
  return handle.fd;
}

/** struct linger: on, for 0 seconds. */
const LINGER_NOT = Buffer.from(Uint32Array.of(1, 0).buffer);

/** Has a socket that is closed next send RST instead of FIN. Never throws. */
export function resetOnClose(fd: number): void {
  callRaw("setsockopt", fd, linux.SOL_SOCKET, linux.SO_LINGER, LINGER_NOT, LINGER_NOT.length);
}

/** Why a socket failed, for the first who asks, as errno; 0: it did not. Throws SystemError. */
export function socketError(fd: number): number {
  intBuffer.writeUInt32LE(4);
  const error = Buffer.allocUnsafeSlow(4);
  call("getsockopt", "SO_ERROR", fd, linux.SOL_SOCKET, linux.SO_ERROR, error, intBuffer);
  return error.readUInt32LE();
}

function openSocket(family: IpFamily, type: number): number {
  const domain = family === 4 ? linux.AF_INET : linux.AF_INET6;
  return call("socket", "", domain, type | linux.SOCK_NONBLOCK | linux.SOCK_CLOEXEC, 0);
}

function setTransparent(fd: number, family: IpFamily): void {
  if (family === 4) setInt(fd, linux.SOL_IP, linux.IP_TRANSPARENT, 1);
  else setInt(fd, linux.SOL_IPV6, linux.IPV6_TRANSPARENT, 1);
}

function setInt(fd: number, level: number, name: number, value: number): void {
  intBuffer.writeInt32LE(value);
  if (callRaw("setsockopt", fd, level, name, intBuffer, 4) !== 0) {
    throw new SystemError("setsockopt", lastErrno(), `level ${level} option ${name} = ${value}`);
  }
}

function sockaddrLength(family: IpFamily): number {
  return family === 4 ? 16 : SOCKADDR_BYTES_MAX;
}
