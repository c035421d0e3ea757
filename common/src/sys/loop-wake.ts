// How Node's event loop hears that one of our descriptors is ready. They are all in one epoll instance,
// and that is readable when one of them is. libuv takes no epoll instance, but a UDP socket; when its
// descriptor becomes the epoll instance behind libuv's back, libuv finds it readable, fails to receive
// from it (ENOTSOCK), says so to `onmessage` and goes on watching. Where Node's UDP handle is not as we
// know it, a thread waits instead.

import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from "./constants.ts";
import { ThreadPoller } from "./fd-poller.ts";
import { call, closeFd, SystemError } from "./libc.ts";

/** While it is referenced it keeps the process alive. It begins without. */
export interface LoopWake {
  /** The epoll instance; it stays open as long as the thread. */
  readonly epoll: number;
  ref(): void;
  unref(): void;
}

/** Calls `onReady`, from the event loop, as long as a descriptor of the epoll instance is ready. */
export type MakeWake = (onReady: () => void) => LoopWake;

const EPOLL_CLOEXEC = 0o2000000;
const O_CLOEXEC = 0o2000000;

/** A UDP socket as Node wraps it. Results below 0 are errno values. */
interface UdpHandle {
  onmessage: () => void;
  open(fd: number): number;
  recvStart(): number;
  ref(): void;
  unref(): void;
}

const METHODS = ["open", "recvStart", "ref", "unref"];

function udpClass(): (new () => UdpHandle) | undefined {
  try {
    const bindings = process as unknown as { binding(name: string): { UDP?: unknown } };
    const { UDP } = bindings.binding("udp_wrap");
    if (typeof UDP !== "function") return undefined;
    const { prototype } = UDP as unknown as { prototype: object };
    return METHODS.every((name) => name in prototype) ? (UDP as new () => UdpHandle) : undefined;
  } catch {
    return undefined;
  }
}

/** By Node's own event loop; undefined when this Node's UDP handle is not as we know it. */
export function handleWake(): MakeWake | undefined {
  const Udp = udpClass();
  return Udp && ((onReady) => wakeByHandle(new Udp(), onReady));
}

function wakeByHandle(handle: UdpHandle, onReady: () => void): LoopWake {
  const fd = call("socket", "", AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const opened = handle.open(fd);
  if (opened < 0) throw new SystemError("uv_udp_open", -opened);
  const epoll = call("epoll_create1", "", EPOLL_CLOEXEC);
  call("dup3", "of an epoll instance", epoll, fd, O_CLOEXEC);
  closeFd(epoll);
  handle.onmessage = onReady;
  const started = handle.recvStart();
  if (started < 0) throw new SystemError("uv_udp_recv_start", -started);
  handle.unref();
  return { epoll: fd, ref: () => handle.ref(), unref: () => handle.unref() };
}

/** By a thread, which is an isolate of its own and a way round for each wake. */
export function threadWake(onReady: () => void): LoopWake {
  const epoll = call("epoll_create1", "", EPOLL_CLOEXEC);
  const poller = new ThreadPoller();
  let referenced = false;
  let armed = false;
  const arm = () => {
    if (!armed) poller.once(epoll, notify);
    armed = true;
  };
  const notify = () => {
    armed = false;
    onReady();
    if (referenced) arm();
  };
  return {
    epoll,
    ref: () => {
      referenced = true;
      arm();
    },
    unref: () => {
      referenced = false;
      if (armed) poller.forget(epoll);
      armed = false;
    },
  };
}
