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
import { closeFd } from "@ambit/common/sys/libc.ts";
import { connectSeqpacket, type SeqpacketSocket } from "@ambit/common/sys/seqpacket.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { PodRegistry } from "./pod-registry.ts";

const RETRY_FIRST_MS = 20;
const RETRY_MAX_MS = 15_000;

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

/** A message that must not come in this state. */
class ProtocolError extends Error {}

interface Packet {
  readonly bytes: Buffer;
  readonly fds: readonly number[];
}

export class ZdsClient {
  readonly #options: ZdsClientOptions;
  #socket: SeqpacketSocket | undefined;
  #retry: Timer | undefined;
  #retryMs = RETRY_FIRST_MS;
  #closed = false;
  /** Pods of the snapshot being received; undefined once it is complete. */
  #snapshot: Set<string> | undefined;
  /** Packets are handled one after the other, in order: the agent counts acknowledgements. */
  #work: Promise<void> = Promise.resolve();

  constructor(options: ZdsClientOptions) {
    this.#options = options;
    this.#connect();
  }

  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
    this.#socket?.close();
  }

  #connect(): void {
    const { path, log } = this.#options;
    try {
      const socket = connectSeqpacket(path, {
        onPacket: (bytes, fds) => this.#enqueue(socket, { bytes, fds }),
        onClose: (reason) => this.#onClose(reason),
      });
      this.#socket = socket;
      this.#snapshot = new Set();
      socket.send(toBinary(ZdsHelloSchema, create(ZdsHelloSchema, { version: Version.V1 })));
      this.#retryMs = RETRY_FIRST_MS;
      log.info("connected to the node agent", { path });
    } catch (error) {
      this.#socket?.close();
      log.debug("node agent not reachable", { path, error: errorMessage(error) });
      this.#retryLater();
    }
  }

  #retryLater(): void {
    if (this.#closed) return;
    this.#retry = this.#options.clock.after(this.#retryMs, () => this.#connect());
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }

  #onClose(reason: string): void {
    this.#options.log.warn("node agent went away", { reason });
    this.#options.onSynced(false);
    this.#retryMs = RETRY_FIRST_MS;
    this.#retryLater();
  }

  #enqueue(socket: SeqpacketSocket, packet: Packet): void {
    this.#work = this.#work.then(() => this.#handle(socket, packet));
  }

  async #handle(socket: SeqpacketSocket, packet: Packet): Promise<void> {
    let failure = "";
    try {
      await this.#apply(packet);
    } catch (error) {
      failure = errorMessage(error);
      this.#options.log.warn("ZDS message failed", { error: failure });
      if (error instanceof ProtocolError) {
        this.#acknowledge(socket, failure);
        this.#options.onProtocolError();
        return;
      }
      if (error instanceof MalformedPacket) {
        this.#acknowledge(socket, failure);
        socket.close();
        this.#onClose(failure);
        return;
      }
    }
    this.#acknowledge(socket, failure);
  }

  #acknowledge(socket: SeqpacketSocket, error: string): void {
    if (socket.closed) return;
    const response = create(WorkloadResponseSchema, { payload: { case: "ack", value: { error } } });
    try {
      socket.send(toBinary(WorkloadResponseSchema, response));
    } catch (cause) {
      this.#options.log.warn("cannot acknowledge", { error: errorMessage(cause) });
    }
  }

  async #apply({ bytes, fds }: Packet): Promise<void> {
    const request = decode(bytes, fds);
    const { pods } = this.#options;
    switch (request.payload.case) {
      case "add": {
        const { uid, workloadInfo } = request.payload.value;
        if (workloadInfo === undefined) {
          closeAll(fds);
          throw new ProtocolError(`add of ${uid} without workload info`);
        }
        this.#snapshot?.add(uid);
        const { name, namespace, serviceAccount } = workloadInfo;
        return pods.add(uid, { name, namespace, serviceAccount }, fds[0]);
      }
      case "keep":
        if (this.#snapshot === undefined) throw new ProtocolError("keep after the snapshot");
        this.#snapshot.add(request.payload.value.uid);
        return;
      case "del":
        this.#snapshot?.delete(request.payload.value.uid);
        return pods.remove(request.payload.value.uid);
      case "snapshotSent": {
        const snapshot = this.#snapshot;
        if (snapshot === undefined) throw new ProtocolError("a second snapshot");
        this.#snapshot = undefined;
        await pods.retain(snapshot);
        this.#options.onSynced(true);
        return;
      }
      case undefined:
        throw new MalformedPacket("an empty request");
    }
  }
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
