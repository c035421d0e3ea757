// Direct connections that have ended, as the programs report them: who talked to whom, when, how much. They end
// by ten thousands in a second: nothing is made for each of them, it is looked at where it is.

import { decodeFlow, type DirectFlow } from "./bpf-direct.ts";
import { MAPS, STRUCTS } from "./bpf-layout.gen.ts";
import { BpfRing } from "./bpf-ring.ts";
import { KindNumbers } from "./bpf-flow-kinds.ts";
import { TcpState } from "./sock-diag.ts";

export interface EndedFlow {
  readonly flow: DirectFlow;
  /** The flow's. */
  readonly cookie: bigint;
  /** The same number for the same source pod, destination address and port, and service called. */
  readonly between: number;
  /** As process.hrtime.bigint() counts. */
  readonly endedNs: bigint;
  /** By a reset, or by somebody who ends connections: not by both sides' closing. */
  readonly aborted: boolean;
  /** By the destination, from the source. */
  readonly bytesReceived: number;
  /** By the destination, to the source. */
  readonly bytesSent: number;
}

/** Records read in one go: later ones wait for the next, so that others get their turn. */
const READ_MAX = 4096;

export class EndedFlows implements Disposable {
  readonly #ring: BpfRing;
  readonly #record: EndedRecord;

  /** Of the map's descriptor, which stays the caller's. One reader at a time. Throws SystemError. */
  constructor(fd: number) {
    this.#ring = new BpfRing(fd, MAPS.ended.entriesMax);
    this.#record = new EndedRecord(this.#ring.data);
  }

  /**
   * What ended since the last call; at most some thousand, the rest is for the next call. `take` must
   * not keep what it gets: it is one object, and shows what the kernel wrote of one connection after the other.
   */
  read(take: (ended: EndedFlow) => void): number {
    const record = this.#record;
    return this.#ring.read((at) => {
      record.at = at;
      take(record);
    }, READ_MAX);
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
  }
}

const { endedFlow: LAYOUT, flow: FLOW, flowKey: KEY } = STRUCTS;

class EndedRecord implements EndedFlow {
  /** Where the record begins. */
  at = 0;
  readonly #data: Buffer;
  readonly #words: Uint32Array;
  readonly #kinds = new KindNumbers();

  constructor(data: Buffer) {
    this.#data = data;
    this.#words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
  }

  get flow(): DirectFlow {
    const key = this.at + LAYOUT.key;
    const flow = this.at + LAYOUT.flow;
    return decodeFlow(
      this.#data.subarray(key, key + KEY.bytes),
      this.#data.subarray(flow, flow + FLOW.bytes),
    );
  }

  get cookie(): bigint {
    return this.#data.readBigUInt64LE(this.at + LAYOUT.flow + FLOW.cookie);
  }

  get between(): number {
    return this.#kinds.of(this.#words, this.at / 4);
  }

  get endedNs(): bigint {
    return this.#data.readBigUInt64LE(this.at + LAYOUT.endedNs);
  }

  get aborted(): boolean {
    const state = this.#state;
    return (
      state !== TcpState.LAST_ACK && state !== TcpState.FIN_WAIT2 && state !== TcpState.CLOSING
    );
  }

  get bytesReceived(): number {
    return Math.max(0, this.#bytes(LAYOUT.received) - finsIn(this.#state).received);
  }

  get bytesSent(): number {
    return Math.max(0, this.#bytes(LAYOUT.acked) - finsIn(this.#state).acked);
  }

  get #state(): number {
    return this.#words[(this.at + LAYOUT.state) / 4]!;
  }

  /** Up to 8 PiB: more than a connection carries. */
  #bytes(offset: number): number {
    const word = (this.at + offset) / 4;
    return this.#words[word]! + this.#words[word + 1]! * 2 ** 32;
  }
}

/**
 * The kernel counts a FIN as a byte. Which of the two are among the bytes, the state before the end tells; in
 * FIN_WAIT2 the peer's may be or not: a server that has closed is usually gone before it comes.
 */
function finsIn(state: number): { readonly received: number; readonly acked: number } {
  switch (state) {
    case TcpState.CLOSE_WAIT:
      return FINS.received;
    case TcpState.LAST_ACK:
    case TcpState.CLOSING:
      return FINS.both;
    case TcpState.FIN_WAIT2:
      return FINS.acked;
    default:
      return FINS.none;
  }
}

const FINS = {
  none: { received: 0, acked: 0 },
  received: { received: 1, acked: 0 },
  acked: { received: 0, acked: 1 },
  both: { received: 1, acked: 1 },
} as const;
