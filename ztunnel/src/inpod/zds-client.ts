// The ZDS client (ztunnel §2.3): the node agent hands us pods one packet at a time, each acknowledged.
// Reconnects for ever; a protocol error ends the process, as Istio's ztunnel does.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  Version,
  type WorkloadRequest,
  WorkloadRequestSchema,
  WorkloadResponseSchema,
  ZdsHelloSchema,
} from "@ambit/api/gen/istio/zds_pb.ts";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { connectSeqpacket, type SeqpacketSocket } from "@ambit/common/sys/seqpacket.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { PodRegistry } from "./pod-registry.ts";

const RETRY_FIRST_MS = 20;
/**
 * Istio's ztunnel waits up to 15 s. When both were killed, pods are without service until we have found
 * the agent; trying costs next to nothing on a socket of the same node.
 */
const RETRY_MAX_MS = 500;
/** Of the packet's 1,024: the rest is framing and what cutting a character may add. */
const ERROR_BYTES_MAX = 900;

export interface ZdsClientOptions {
  readonly path: string;
  readonly pods: PodRegistry;
  readonly clock: Clock;
  readonly log: Logger;
  /** True once the agent's snapshot is complete, false whenever the agent is away. */
  onSynced(synced: boolean): void;
  /** The agent broke the protocol: going on would mean serving pods we cannot know. */
  onProtocolError(): void;
}

const HELLO = create(ZdsHelloSchema, {
  version: Version.V1,
  answersCaptureProbes: true,
  steeringLayout: CONSTANTS.LAYOUT_VERSION,
});

/** A message that must not come in this state. */
class ProtocolError extends Error {}

interface Packet {
  readonly bytes: Buffer;
  readonly fds: readonly number[];
}

/** One connection to the agent. */
interface Session {
  readonly socket: SeqpacketSocket;
  /** Pods of the snapshot being received; undefined once it is complete. */
  snapshot: Set<string> | undefined;
}

export class ZdsClient {
  readonly #options: ZdsClientOptions;
  #session: Session | undefined;
  #retry: Timer | undefined;
  #retryMs = RETRY_FIRST_MS;
  #closed = false;
  /** Packets are handled one after the other, in order: the agent counts acknowledgements. */
  #work: Promise<void> = Promise.resolve();

  constructor(options: ZdsClientOptions) {
    this.#options = options;
    this.#connect();
  }

  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
    this.#session?.socket.close();
    this.#session = undefined;
  }

  #connect(): void {
    const { path, log, pods } = this.#options;
    let socket: SeqpacketSocket | undefined;
    try {
      socket = connectSeqpacket(path, {
        onPacket: (bytes, fds) => this.#enqueue(session, { bytes, fds }),
        onClose: (reason) => this.#onClose(session, reason),
      });
      socket.send(toBinary(ZdsHelloSchema, HELLO));
    } catch (error) {
      socket?.close();
      log.debug("node agent not reachable", { path, error: errorMessage(error) });
      this.#retryLater();
      return;
    }
    const session: Session = { socket, snapshot: new Set() };
    this.#session = session;
    this.#retryMs = RETRY_FIRST_MS;
    this.#work = this.#work.then(() => pods.removePending());
    log.info("connected to the node agent", { path });
  }

  #retryLater(): void {
    if (this.#closed) return;
    this.#retry = this.#options.clock.after(this.#retryMs, () => this.#connect());
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }

  #onClose(session: Session, reason: string): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    this.#options.log.warn("node agent went away", { reason });
    this.#options.onSynced(false);
    this.#retryLater();
  }

  #enqueue(session: Session, packet: Packet): void {
    this.#work = this.#work.then(() => this.#handle(session, packet));
  }

  async #handle(session: Session, packet: Packet): Promise<void> {
    // What came on a connection that is gone is not ours to apply: the agent will send it again.
    if (this.#session !== session) return closeAll(packet.fds);
    let failure = "";
    try {
      await this.#apply(session, packet);
    } catch (error) {
      failure = errorMessage(error);
      this.#options.log.warn("ZDS message failed", { error: failure });
      this.#acknowledge(session, failure);
      if (error instanceof ProtocolError) this.#options.onProtocolError();
      else if (error instanceof MalformedPacket) {
        session.socket.close();
        this.#onClose(session, failure);
      }
      return;
    }
    this.#acknowledge(session, failure);
  }

  #acknowledge({ socket }: Session, error: string): void {
    if (socket.closed) return;
    const response = create(WorkloadResponseSchema, {
      payload: { case: "ack", value: { error: truncate(error) } },
    });
    try {
      socket.send(toBinary(WorkloadResponseSchema, response));
    } catch (cause) {
      this.#options.log.warn("cannot acknowledge", { error: errorMessage(cause) });
    }
  }

  async #apply(session: Session, { bytes, fds }: Packet): Promise<void> {
    const request = decode(bytes, fds);
    const { pods } = this.#options;
    switch (request.payload.case) {
      case "add": {
        const { uid, workloadInfo, steeringSlot: slot } = request.payload.value;
        if (workloadInfo === undefined) {
          closeAll(fds);
          throw new ProtocolError(`add of ${uid} without workload info`);
        }
        session.snapshot?.add(uid);
        const { name, namespace, serviceAccount } = workloadInfo;
        return pods.add(uid, { name, namespace, serviceAccount }, { netnsFd: fds[0], slot });
      }
      case "keep":
        if (session.snapshot === undefined) throw new ProtocolError("keep after the snapshot");
        session.snapshot.add(request.payload.value.uid);
        return;
      case "del": {
        const { uid } = request.payload.value;
        if (session.snapshot === undefined) return pods.remove(uid);
        // A pod that runs is left to the end of the snapshot, which will not list it.
        session.snapshot.delete(uid);
        return pods.removePending(uid);
      }
      case "snapshotSent": {
        const { snapshot } = session;
        if (snapshot === undefined) throw new ProtocolError("a second snapshot");
        session.snapshot = undefined;
        await pods.retain(snapshot);
        if (this.#session === session) this.#options.onSynced(true);
        return;
      }
      case undefined:
        throw new MalformedPacket("an empty request");
    }
  }
}

/** An acknowledgement must fit a packet. */
function truncate(error: string): string {
  const bytes = Buffer.from(error);
  return bytes.length <= ERROR_BYTES_MAX ? error : `${bytes.toString("utf8", 0, ERROR_BYTES_MAX)}…`;
}

/** The packet cannot be what the agent meant: answer and reconnect. */
class MalformedPacket extends Error {}

/** Decodes a packet; only an add carries a descriptor, and exactly one (all are closed otherwise). */
function decode(bytes: Buffer, fds: readonly number[]): WorkloadRequest {
  let request: WorkloadRequest;
  try {
    request = fromBinary(WorkloadRequestSchema, bytes);
  } catch {
    closeAll(fds);
    throw new MalformedPacket("undecodable packet");
  }
  const expected = request.payload.case === "add" ? 1 : 0;
  if (fds.length === expected) return request;
  closeAll(fds);
  throw new MalformedPacket(
    `${request.payload.case} with ${fds.length} descriptors, expected ${expected}`,
  );
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeFd(fd);
}
