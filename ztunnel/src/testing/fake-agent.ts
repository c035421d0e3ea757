// A node agent for tests: it speaks ZDS over a real socket, one request at a time, by hand.

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { WorkloadRequestSchema, WorkloadResponseSchema } from "@ambit/api/gen/istio/zds_pb.ts";
import {
  listenSeqpacket,
  type SeqpacketListener,
  SeqpacketSocket,
} from "@ambit/common/sys/seqpacket.ts";
import { Signal } from "@ambit/common/testing/signal.ts";

/** The node agent's end, driven by hand. */
export class FakeAgent {
  readonly #signal = new Signal();
  readonly #listener: SeqpacketListener;
  readonly hellos: Buffer[] = [];
  readonly errors: string[] = [];
  socket: SeqpacketSocket | undefined;
  connections = 0;
  #closes = 0;

  constructor(path: string) {
    this.#listener = listenSeqpacket(path, (fd) => {
      this.connections++;
      this.socket = new SeqpacketSocket(fd, {
        onPacket: (packet) => this.#onPacket(packet),
        onClose: () => {
          this.#closes++;
          this.#signal.changed();
        },
      });
    });
  }

  #onPacket(packet: Buffer): void {
    if (this.hellos.length < this.connections) this.hellos.push(packet);
    else this.errors.push(errorOf(packet));
    this.#signal.changed();
  }

  async connected(times = 1): Promise<void> {
    await this.#signal.until(() => this.hellos.length >= times);
  }

  async closed(): Promise<void> {
    await this.#signal.until(() => this.#closes > 0);
  }

  /** Sends a request and returns the error of its acknowledgement. */
  async send(payload: Payload, fd?: number): Promise<string> {
    return this.sendBytes(encode(payload), fd);
  }

  async sendBytes(bytes: Uint8Array, fd?: number): Promise<string> {
    const before = this.errors.length;
    this.socket!.send(bytes, fd);
    await this.#signal.until(() => this.errors.length > before);
    return this.errors[before]!;
  }

  close(): void {
    this.socket?.close();
    this.#listener.close();
  }
}

/** A request, as `send` takes it. */
export type Payload = NonNullable<MessageInitShape<typeof WorkloadRequestSchema>["payload"]>;

function errorOf(packet: Buffer): string {
  const { payload } = fromBinary(WorkloadResponseSchema, packet);
  return payload.case === "ack" ? payload.value.error : "no acknowledgement";
}

export const add = (uid: string): Payload => ({
  case: "add",
  value: { uid, workloadInfo: { name: `pod-${uid}`, namespace: "ns", serviceAccount: "sa" } },
});
export const keep = (uid: string): Payload => ({ case: "keep", value: { uid } });
export const del = (uid: string): Payload => ({ case: "del", value: { uid } });
export const SNAPSHOT: Payload = { case: "snapshotSent", value: {} };

export function encode(payload: Payload): Uint8Array {
  return toBinary(WorkloadRequestSchema, create(WorkloadRequestSchema, { payload }));
}
