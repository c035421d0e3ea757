// The ztunnel end of ZDS for tests: says hello, keeps what it is told, acknowledges as instructed. In
// the pods it is given it takes what is captured, and answers capture probes.

import { fstatSync } from "node:fs";
import net from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  Version,
  WorkloadRequestSchema,
  WorkloadResponseSchema,
  ZdsHelloSchema,
} from "@ambit/api/gen/istio/zds_pb.ts";
import { captureAnswer, isCaptureProbe } from "@ambit/common/net/capture-probe.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { listenTcp, originalDst, socketFd } from "@ambit/common/sys/sockets.ts";
import { connectSeqpacket, type SeqpacketSocket } from "@ambit/common/sys/seqpacket.ts";
import { OUTBOUND_PORT, PROXY_MARK } from "../rules/wire.ts";
import { ip } from "./test-network.ts";

export interface FakeRequest {
  readonly type: "add" | "keep" | "del" | "snapshot";
  readonly uid: string;
  readonly name: string;
  /** The inode of the namespace that came along. */
  readonly netnsInode: bigint | undefined;
}

export class FakeZtunnel {
  readonly requests: FakeRequest[] = [];
  closedBecause: string | undefined;
  /** The answer to a request: an error text, empty for success, undefined for none at all. */
  answer: (request: FakeRequest) => string | undefined = () => "";
  /** What a capture probe in a pod gets; undefined: it is kept waiting. */
  probeAnswer: (uid: string) => string | undefined = captureAnswer;
  /** Pods whose probes came, in order. */
  readonly probed: string[] = [];
  /** The other connections that were captured: kept waiting, for tests to talk on. */
  readonly connections: net.Socket[] = [];
  /** Whether it listens in the pods it is given. */
  serves = true;
  readonly #listeners = new Map<string, net.Server>();
  readonly #sockets = new Set<net.Socket>();
  readonly #socket: SeqpacketSocket;
  #wake = () => {};

  constructor(path: string, options: { readonly hello?: Uint8Array | false } = {}) {
    this.#socket = connectSeqpacket(path, {
      onPacket: (packet, fds) => this.#onPacket(packet, fds),
      onClose: (reason) => {
        this.closedBecause = reason;
        this.#wake();
      },
    });
    const hello = toBinary(ZdsHelloSchema, ourHello());
    if (options.hello !== false) this.#socket.send(options.hello ?? hello);
  }

  /** "add a", "snapshot", … in the order they came. */
  get log(): string[] {
    return this.requests.map(({ type, uid }) => (type === "snapshot" ? type : `${type} ${uid}`));
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  /** Waits for a request, "add a" for instance, that came or comes. */
  async saw(text: string): Promise<void> {
    await this.until(() => this.log.includes(text));
  }

  sendRaw(bytes: Uint8Array, fd?: number): void {
    this.#socket.send(bytes, fd);
  }

  acknowledge(error: string): void {
    const response = create(WorkloadResponseSchema, { payload: { case: "ack", value: { error } } });
    this.#socket.send(toBinary(WorkloadResponseSchema, response));
  }

  close(): void {
    this.#socket.close();
    for (const server of this.#listeners.values()) server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Takes what the rules bring to 15001. */
  #serve(uid: string, netnsFd: number): void {
    this.#listeners.get(uid)?.close();
    const server = net.createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      this.#onCaptured(uid, socket);
      this.#wake();
    });
    const address = { ip: ip("::"), port: OUTBOUND_PORT };
    server.listen({ fd: listenTcp(netnsFd, { address, mark: PROXY_MARK, reusePort: true }) });
    this.#listeners.set(uid, server);
  }

  #onCaptured(uid: string, socket: net.Socket): void {
    const destination = originalDst(socketFd(socket));
    if (destination === undefined || !isCaptureProbe(destination)) {
      this.connections.push(socket);
      return;
    }
    this.probed.push(uid);
    const answer = this.probeAnswer(uid);
    if (answer !== undefined) socket.end(answer);
  }

  #onPacket(packet: Uint8Array, fds: readonly number[]): void {
    const inodes = fds.map((fd) => fstatSync(fd, { bigint: true }).ino);
    const request = decodeRequest(packet, inodes[0]);
    this.requests.push(request);
    const error = this.answer(request);
    if (this.serves && error === "" && fds[0] !== undefined) this.#serve(request.uid, fds[0]);
    if (request.type === "del") this.#listeners.get(request.uid)?.close();
    for (const fd of fds) closeFd(fd);
    if (error !== undefined) this.acknowledge(error);
    this.#wake();
  }
}

function ourHello() {
  return create(ZdsHelloSchema, { version: Version.V1, answersCaptureProbes: true });
}

function decodeRequest(packet: Uint8Array, netnsInode: bigint | undefined): FakeRequest {
  const { payload } = fromBinary(WorkloadRequestSchema, packet);
  switch (payload.case) {
    case "add": {
      const { uid, workloadInfo } = payload.value;
      return { type: "add", uid, name: workloadInfo?.name ?? "", netnsInode };
    }
    case "keep":
      return { type: "keep", uid: payload.value.uid, name: "", netnsInode };
    case "del":
      return { type: "del", uid: payload.value.uid, name: "", netnsInode };
    case "snapshotSent":
      return { type: "snapshot", uid: "", name: "", netnsInode };
    case undefined:
      throw new Error("a request without payload");
  }
}
