// Direct connections that have ended, as the programs report them: who talked to whom, when, how much.

import { decodeFlow, type DirectFlow } from "./bpf-direct.ts";
import { MAPS, STRUCTS } from "./bpf-layout.gen.ts";
import { BpfRing } from "./bpf-ring.ts";
import { TcpState } from "./sock-diag.ts";

export interface EndedFlow {
  readonly flow: DirectFlow;
  /** As process.hrtime.bigint() counts. */
  readonly endedNs: bigint;
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

  /** What ended since the last call; at most some thousand, the rest is for the next call. */
  read(take: (ended: EndedFlow) => void): number {
    return this.#ring.read((record) => take(decodeEnded(record)), READ_MAX);
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
  }
}

function decodeEnded(record: Buffer): EndedFlow {
  const { endedFlow, flow, flowKey } = STRUCTS;
  const part = (offset: number, bytes: number) => record.subarray(offset, offset + bytes);
  const fins = finsIn(record.readUInt32LE(endedFlow.state));
  const bytes = (offset: number) => Number(record.readBigUInt64LE(offset));
  return {
    flow: decodeFlow(part(endedFlow.key, flowKey.bytes), part(endedFlow.flow, flow.bytes)),
    endedNs: record.readBigUInt64LE(endedFlow.endedNs),
    bytesReceived: Math.max(0, bytes(endedFlow.received) - fins.received),
    bytesSent: Math.max(0, bytes(endedFlow.acked) - fins.acked),
  };
}

/**
 * The kernel counts a FIN as a byte. Which of the two are among the bytes, the state before the end tells; in
 * FIN_WAIT2 the peer's may be or not: a server that has closed is usually gone before it comes.
 */
function finsIn(state: number): { received: number; acked: number } {
  switch (state) {
    case TcpState.CLOSE_WAIT:
      return { received: 1, acked: 0 };
    case TcpState.LAST_ACK:
    case TcpState.CLOSING:
      return { received: 1, acked: 1 };
    case TcpState.FIN_WAIT2:
      return { received: 0, acked: 1 };
    default:
      return { received: 0, acked: 0 };
  }
}
