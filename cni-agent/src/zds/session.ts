// One ztunnel on the ZDS socket: hello, then requests one at a time, each acknowledged before the next
// goes out. Owns the queue of requests and which pods this ztunnel has. Does not know other sessions.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { SeqpacketSocket } from "@ambit/common/sys/seqpacket.ts";
import { AgentError } from "../errors.ts";
import type { ZtunnelFacts } from "../rules/redirection-choice.ts";
import { decodeAck, decodeHello } from "./messages.ts";

/** For the hello and for each acknowledgement, as Istio's agent. */
export const ANSWER_DEADLINE_MS = 5_000;

/** Far more than a node has pods: a ztunnel this far behind starts again with a snapshot. */
const QUEUE_MAX = 10_000;

export interface Request {
  readonly bytes: Uint8Array;
  readonly netnsFd?: number;
}

export interface SessionHandlers {
  onHello(session: ZdsSession): void;
  /** Once, for whatever reason. */
  onEnd(session: ZdsSession, reason: string): void;
}

interface Job {
  /** Made when its turn comes: by then a pod may be gone and its descriptor closed. */
  readonly make: () => Request | undefined;
  readonly resolve: () => void;
  readonly reject: (error: AgentError) => void;
}

export class ZdsSession {
  readonly #socket: SeqpacketSocket;
  readonly #handlers: SessionHandlers;
  readonly #clock: Clock;
  readonly #queue: Job[] = [];
  #state: "hello" | "idle" | "waiting" | "ended" = "hello";
  #current: Job | undefined;
  #deadline: Timer;
  /** Uids this ztunnel has acknowledged, or keeps. */
  readonly pods = new Set<string>();
  #answersProbes = false;
  #steeringLayout = 0;

  /** Takes over a connected descriptor. */
  constructor(fd: number, handlers: SessionHandlers, clock: Clock) {
    this.#handlers = handlers;
    this.#clock = clock;
    this.#deadline = this.#startDeadline("sent no hello");
    this.#socket = new SeqpacketSocket(fd, {
      onPacket: (packet, fds) => this.#onPacket(packet, fds),
      onClose: (reason) => this.#end(reason),
    });
  }

  /**
   * Queues a request; `make` may give up by returning undefined, which counts as done. Rejects with
   * ztunnel-rejected, ztunnel-timed-out or ztunnel-left.
   */
  request(make: () => Request | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (this.#state === "ended") reject(new AgentError("ztunnel-left", "ztunnel went away"));
    else this.#queue.push({ make, resolve, reject });
    if (this.#queue.length > QUEUE_MAX) this.#end(`is ${QUEUE_MAX} requests behind`);
    this.#next();
    return promise;
  }

  /** From its hello: whether it answers capture probes. Istio's does not. */
  get answersProbes(): boolean {
    return this.#answersProbes;
  }

  /** What redirection wants to know of this ztunnel, from its hello and from the kernel. */
  get facts(): ZtunnelFacts {
    return { steeringLayout: this.#steeringLayout, pid: this.#socket.peerPid };
  }

  close(reason: string): void {
    this.#end(reason);
  }

  #next(): void {
    while (this.#state === "idle") {
      const job = this.#queue.shift();
      if (job === undefined) return;
      this.#send(job);
    }
  }

  #send(job: Job): void {
    const request = job.make();
    if (request === undefined) return job.resolve();
    this.#current = job;
    this.#state = "waiting";
    try {
      this.#socket.send(request.bytes, request.netnsFd);
      this.#deadline = this.#startDeadline("acknowledged nothing");
    } catch (error) {
      this.#end(`cannot be written to: ${errorMessage(error)}`);
    }
  }

  #onPacket(packet: Uint8Array, fds: readonly number[]): void {
    for (const fd of fds) closeFd(fd);
    if (fds.length > 0) return this.#end("sent a descriptor, which ZDS does not");
    if (this.#state === "hello") this.#onHello(packet);
    else if (this.#state === "waiting") this.#onAck(packet);
    else this.#end("answered without being asked");
  }

  #onHello(packet: Uint8Array): void {
    const hello = decodeHello(packet);
    if (!hello.ok) return this.#end(hello.reason);
    this.#deadline.cancel();
    this.#answersProbes = hello.value.answersCaptureProbes;
    this.#steeringLayout = hello.value.steeringLayout;
    this.#state = "idle";
    this.#handlers.onHello(this);
    this.#next();
  }

  #onAck(packet: Uint8Array): void {
    const ack = decodeAck(packet);
    if (!ack.ok) return this.#end(ack.reason);
    this.#deadline.cancel();
    const job = this.#current!;
    this.#current = undefined;
    this.#state = "idle";
    if (ack.value === "") job.resolve();
    else job.reject(new AgentError("ztunnel-rejected", `ztunnel refused: ${ack.value}`));
    this.#next();
  }

  #startDeadline(what: string): Timer {
    return this.#clock.after(ANSWER_DEADLINE_MS, () => {
      this.#end(`${what} for ${ANSWER_DEADLINE_MS / 1000} s`, "ztunnel-timed-out");
    });
  }

  #end(reason: string, code: "ztunnel-left" | "ztunnel-timed-out" = "ztunnel-left"): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#deadline.cancel();
    this.#socket.close();
    const jobs = this.#current === undefined ? this.#queue : [this.#current, ...this.#queue];
    for (const { reject } of jobs) reject(new AgentError(code, `ztunnel left: ${reason}`));
    this.#queue.length = 0;
    this.#handlers.onEnd(this, reason);
  }
}
