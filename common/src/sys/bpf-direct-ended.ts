// Direct connections that have ended, as the programs report them: who talked to whom, when, how much.

import { decodeFlow, type DirectFlow } from "./bpf-direct.ts";
import { MAPS, STRUCTS } from "./bpf-layout.gen.ts";
import { BpfRing } from "./bpf-ring.ts";
import { TcpState } from "./sock-diag.ts";

export interface EndedFlow {
  readonly flow: DirectFlow;
  /** The flow's. */
  readonly cookie: bigint;
  /** The same text for the same source pod, destination address and port, and service called. */
  readonly between: string;
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

  /** Of the map's descriptor, which stays the caller's. One reader at a time. Throws SystemError. */
  constructor(fd: number) {
    this.#ring = new BpfRing(fd, MAPS.ended.entriesMax);
  }

  /**
   * What ended since the last call; at most some thousand, the rest is for the next call. `take` must
   * not keep what it gets: it is read where the kernel wrote it, as far as it is looked at.
   */
  read(take: (ended: EndedFlow) => void): number {
    return this.#ring.read((record) => take(new EndedRecord(record)), READ_MAX);
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
  }
}

const { endedFlow: LAYOUT, flow: FLOW, flowKey: KEY } = STRUCTS;

class EndedRecord implements EndedFlow {
  readonly #record: Buffer;

  constructor(record: Buffer) {
    this.#record = record;
  }

  get flow(): DirectFlow {
    const key = this.#record.subarray(LAYOUT.key, LAYOUT.key + KEY.bytes);
    const flow = this.#record.subarray(LAYOUT.flow, LAYOUT.flow + FLOW.bytes);
    return decodeFlow(key, flow);
  }

  get cookie(): bigint {
    return this.#record.readBigUInt64LE(LAYOUT.flow + FLOW.cookie);
  }

  get between(): string {
    const record = this.#record;
    const text = (offset: number, bytes: number) =>
      record.toString("latin1", offset, offset + bytes);
    return (
      text(LAYOUT.flow + FLOW.netns, 8) +
      text(LAYOUT.flow + FLOW.slot, 4) +
      text(LAYOUT.flow + FLOW.service, STRUCTS.endpoint.bytes) +
      text(LAYOUT.key + KEY.destination, STRUCTS.address.bytes) +
      text(LAYOUT.key + KEY.destinationPort, 2)
    );
  }

  get endedNs(): bigint {
    return this.#record.readBigUInt64LE(LAYOUT.endedNs);
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
    return this.#record.readUInt32LE(LAYOUT.state);
  }

  /** Up to 256 TiB: more than a connection carries. */
  #bytes(offset: number): number {
    return this.#record.readUIntLE(offset, 6);
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
