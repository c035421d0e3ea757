// The descriptors that Node's event loop does not know: those of the byte path, and those of kinds it
// cannot watch. All of a thread's are in one epoll instance, so that a wake of the event loop costs one
// system call for all that are ready, and none of them a call from Node into JavaScript of its own.
// While they are ready again and again, the loop waits for them itself (`#stay`), and Node's gets its turn
// now and then: a turn of Node's costs as much as what it takes to pass on a request.

import { performance } from "node:perf_hooks";
import { throwLater } from "../process/throw-later.ts";
import {
  atTurnEnd,
  holdTurns,
  releaseTurns,
  runTurnEnd,
  turnEndWaits,
} from "../process/turn-end.ts";
import { epollCtl, epollWait } from "./byte-calls.ts";
import { addressOf, lastErrno, SystemError } from "./libc.ts";
import { handleWake, type LoopWake, type MakeWake, threadWake } from "./loop-wake.ts";

export const EPOLLIN = 0x001;
export const EPOLLPRI = 0x002;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLRDHUP = 0x2000;
/** Tells of what is new only; whoever asks for it reads until there is nothing left. */
export const EPOLLET = 0x8000_0000;

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

/** Taken from the kernel per wake; what else is ready comes in the next turn, as do Node's own events. */
const EVENTS_MAX = 128;

/**
 * We stay when one wake follows another within that time, and leave when nothing has come for as long, or
 * for twice as long when something has: so late Node's own events and timers can be. It is two ticks of
 * a kernel's clock: to wait for less costs it two changes of its timer, as much as a send.
 */
export const STAY_MS = 8;

/** struct epoll_event in 32-bit words: events, then 64 bits of ours. Packed on x86-64 alone. */
const DATA_AT = process.arch === "x64" ? 1 : 2;
const EVENT_WORDS = DATA_AT + 2;

/**
 * Runs Node's queues of ticks and promises, as Node does when a callback of its own returns. A Node that
 * has no such function gets its turn after each wake.
 */
const runTicks = (process as { _tickCallback?: () => void })._tickCallback;

/** Whose descriptor it is. */
export interface FdTarget {
  /**
   * The descriptor is ready for `events`; 0 when it was `soon` that asked. They are what the kernel saw
   * a moment ago: what was closed or drained since is for the target to find out.
   */
  onReady(events: number): void;
}

export class FdLoop {
  readonly #wake: LoopWake;
  readonly #events = new Uint32Array(EVENTS_MAX * EVENT_WORDS);
  readonly #eventsAddress: number;
  readonly #event = new Uint32Array(EVENT_WORDS);
  readonly #eventBytes = new Uint8Array(this.#event.buffer);
  /** By slot. A slot is used again at once, but with another serial: late events do not find it. */
  readonly #targets: (FdTarget | undefined)[] = [];
  readonly #serials: number[] = [];
  readonly #freeSlots: number[] = [];
  #lastSerial = 0;
  #count = 0;
  readonly #soon: FdTarget[] = [];
  #telling = false;
  #lastMs = -Infinity;
  #nodeIsReady = false;
  #waitedMs: Float64Array = new Float64Array(1);

  constructor(makeWake: MakeWake = handleWake() ?? threadWake) {
    this.#wake = makeWake(() => this.#onWake());
    this.#eventsAddress = Number(addressOf(new Uint8Array(this.#events.buffer)));
  }

  /** How many descriptors are watched. While there are any, the process stays alive. */
  get size(): number {
    return this.#count;
  }

  /** How long the loop has waited by itself, which Node takes for time that the thread was busy. */
  get waitedMs(): number {
    return this.#waitedMs[0]!;
  }

  /** From now on it counts that there, where another thread may look. */
  countWaits(ms: Float64Array<SharedArrayBuffer>): void {
    ms[0] = this.waitedMs;
    this.#waitedMs = ms;
  }

  /** Watches a descriptor from now on; returns its slot. Throws SystemError. */
  add(fd: number, events: number, target: FdTarget): number {
    const slot = this.#freeSlots.pop() ?? this.#targets.length;
    this.#targets[slot] = target;
    this.#serials[slot] = this.#lastSerial = (this.#lastSerial + 1) >>> 0;
    if (this.#count++ === 0) this.#wake.ref();
    try {
      this.change(fd, slot, events, EPOLL_CTL_ADD);
    } catch (error) {
      this.remove(slot);
      throw error;
    }
    return slot;
  }

  /** Watches for other events; those of them that hold are told of anew. Throws SystemError. */
  change(fd: number, slot: number, events: number, operation = EPOLL_CTL_MOD): void {
    this.#event[0] = events;
    this.#event[DATA_AT] = slot;
    this.#event[DATA_AT + 1] = this.#serials[slot]!;
    if (epollCtl(this.#wake.epoll, operation, fd, this.#eventBytes) === 0) return;
    throw new SystemError("epoll_ctl", lastErrno(), `of descriptor ${fd}`);
  }

  /** Gives a slot to another target, which hears of what comes from now on. */
  replace(slot: number, target: FdTarget): void {
    this.#targets[slot] = target;
  }

  /** Forgets a descriptor that is closed next: by closing, the kernel forgets it too. */
  remove(slot: number): void {
    this.#targets[slot] = undefined;
    this.#serials[slot] = -1;
    this.#freeSlots.push(slot);
    if (--this.#count === 0) this.#wake.unref();
  }

  /** Forgets a descriptor that may stay open, here or, as a copy, elsewhere. */
  unwatch(fd: number, slot: number): void {
    epollCtl(this.#wake.epoll, EPOLL_CTL_DEL, fd, null);
    this.remove(slot);
  }

  /**
   * Calls the target once without an event: when all events of this wake have been told of, or else
   * `later`; never before it returns.
   */
  soon(target: FdTarget): void {
    if (this.#telling) this.#soon.push(target);
    else this.later(target);
  }

  /** Calls it once without an event at the end of this turn of the event loop. */
  later(target: FdTarget): void {
    atTurnEnd(() => tell(target, 0));
  }

  /**
   * Node watches this descriptor itself. As soon as it can be read, Node's event loop gets its turn, however
   * busy ours are. Until it is disposed of, before the descriptor is closed. Throws SystemError.
   */
  heed(fd: number): Disposable {
    const onReady = () => void (this.#nodeIsReady = true);
    const slot = this.add(fd, EPOLLIN | EPOLLET, { onReady });
    let heeded = true;
    return {
      [Symbol.dispose]: () => {
        if (heeded) this.unwatch(fd, slot);
        heeded = false;
      },
    };
  }

  #onWake(): void {
    const wokeMs = performance.now();
    this.#nodeIsReady = false;
    holdTurns();
    try {
      this.#tell(this.#take(0));
      if (runTicks !== undefined && wokeMs - this.#lastMs < STAY_MS) this.#stay();
    } finally {
      releaseTurns();
    }
    this.#lastMs = performance.now();
  }

  /** Waits for what comes next, and tells of it, until it is Node's turn. */
  #stay(): void {
    let nowMs = performance.now();
    const untilMs = nowMs + STAY_MS;
    while (nowMs < untilMs && !this.#nodeIsReady && this.#count > 0) {
      const waits = !turnEndWaits();
      const count = this.#take(waits ? STAY_MS : 0);
      this.#waitedMs[0]! += performance.now() - nowMs;
      if (count <= 0 && waits) return;
      this.#tell(count);
      nowMs = performance.now();
    }
  }

  /** How many descriptors are ready, after `timeoutMs` at most; below 0: interrupted. */
  #take(timeoutMs: number): number {
    return epollWait(this.#wake.epoll, this.#eventsAddress, EVENTS_MAX, timeoutMs);
  }

  /** A whole turn: the events, ticks and promises, and what was put off to its end. */
  #tell(count: number): void {
    this.#telling = true;
    for (let at = 0; at < count * EVENT_WORDS; at += EVENT_WORDS) {
      const slot = this.#events[at + DATA_AT]!;
      if (this.#serials[slot] !== this.#events[at + DATA_AT + 1]) continue;
      tell(this.#targets[slot]!, this.#events[at]!);
    }
    this.#telling = false;
    if (this.#soon.length > 0) this.#tellSoon();
    if (runTicks === undefined) return;
    runTicks();
    if (!turnEndWaits()) return;
    runTurnEnd();
    runTicks();
  }

  #tellSoon(): void {
    for (const target of this.#soon) tell(target, 0);
    this.#soon.length = 0;
  }
}

/** What one target throws must not keep the event from the others. */
function tell(target: FdTarget, events: number): void {
  try {
    target.onReady(events);
  } catch (error) {
    throwLater(error);
  }
}

let own: FdLoop | undefined;

/** This thread's, made at first use. */
export function fdLoop(): FdLoop {
  own ??= new FdLoop();
  return own;
}

/** See `waitedMs`; of this thread. */
export function waitedMs(): number {
  return own?.waitedMs ?? 0;
}
