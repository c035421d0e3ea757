// Direct connections without a kernel: the pods of a test mesh as if they were steered, and a kernel that
// keeps what it is told.

import { type Ip, parseIp } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { DirectBackend, DirectFlow, DirectSource } from "@ambit/common/sys/bpf-direct.ts";
import type { EndedFlow } from "@ambit/common/sys/bpf-direct-ended.ts";
import { type TcpSocket, TcpState } from "@ambit/common/sys/sock-diag.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import type { Config } from "../config.ts";
import { DirectPaths } from "../direct/direct-paths.ts";
import type { DirectKernel } from "../direct/kernel.ts";
import type { Pod } from "../proxy/context.ts";
import type { TestMesh } from "../state/testing-mesh.ts";
import { workloadIdentity } from "../state/workload.ts";
import { type TestContext, testContext, testPod } from "./test-context.ts";

/** An address known to be one. */
export const ip = (text: string): Ip => parseIp(text)!;

export class FakeDirectKernel implements DirectKernel {
  /** Cookie to slot. */
  readonly slots = new Map<bigint, number>();
  readonly ips = new Map<number, Ip[]>();
  readonly generations = new Map<number, number>();
  readonly verdicts = new Map<string, readonly DirectBackend[]>();
  readonly ended: EndedFlow[] = [];
  live: DirectFlow[] = [];
  /** Sockets of the namespaces, all in one. */
  sockets: TcpSocket[] = [];
  room = Infinity;

  slotOf(cookie: bigint): number | undefined {
    return this.slots.get(cookie);
  }

  addresses(slot: number): Ip[] {
    return this.ips.get(slot) ?? [];
  }

  generation(slot: number): number {
    return this.generations.get(slot) ?? 0;
  }

  revoke(slot: number): void {
    this.generations.set(slot, this.generation(slot) + 1);
  }

  allow({ netns }: DirectSource, called: SocketAddress, backends: readonly DirectBackend[]): void {
    if (this.verdicts.size >= this.room) throw new Error("E2BIG");
    this.verdicts.set(verdictKey(netns, called), backends);
  }

  withdraw(netns: bigint, called: SocketAddress): void {
    this.verdicts.delete(verdictKey(netns, called));
  }

  withdrawAll(): void {
    this.verdicts.clear();
  }

  flows(): DirectFlow[] {
    return this.live;
  }

  forget(flow: DirectFlow): void {
    this.live = this.live.filter((other) => other !== flow);
  }

  connections(): TcpSocket[] {
    return this.sockets;
  }

  end(_netnsFd: number | undefined, sockets: readonly TcpSocket[]): void {
    this.sockets = this.sockets.filter((socket) => !sockets.includes(socket));
  }

  readEnded(take: (ended: EndedFlow) => void): void {
    for (const ended of this.ended.splice(0)) take(ended);
  }

  /** Where a socket of the namespace would be sent: `address:port`, by verdicts that are in force. */
  destinations(netns: bigint, called: SocketAddress): string[] {
    const backends = this.verdicts.get(verdictKey(netns, called)) ?? [];
    return backends
      .filter(({ slot, generation }) => this.generation(slot) === generation)
      .map(({ to }) => formatSocketAddress(to));
  }
}

export class DirectTestLab {
  readonly kernel = new FakeDirectKernel();
  readonly context: TestContext;
  readonly #mesh: TestMesh;
  readonly #ca = new TestCa();
  readonly #pods = new Map<string, Pod>();

  /** `steered`: the workloads whose pods are this node's, by name. */
  constructor(
    mesh: TestMesh,
    steered: readonly string[],
    config: Partial<Config> = {},
    accessLevel: "info" | "error" = "info",
  ) {
    this.#mesh = mesh;
    const cookies = new Map<number | undefined, bigint>();
    const direct = new DirectPaths({
      open: () => this.kernel,
      cookieOf: (fd) => cookies.get(fd)!,
    });
    const context = testContext({
      state: mesh.state,
      direct,
      config: { sameNode: "direct", ...config },
      localPod: ({ name, node }) => (node === "node-1" ? this.#pods.get(name) : undefined),
    });
    const access = memoryLog(accessLevel).log.scope("access");
    this.context =
      accessLevel === "info"
        ? context
        : { ...context, telemetry: { ...context.telemetry, access } };
    for (const [slot, name] of steered.entries()) {
      const info = { name, namespace: "ns", serviceAccount: name };
      const pod = { ...testPod(this.context, info), netnsFd: 1000 + slot };
      const cookie = this.cookie(name, slot);
      cookies.set(pod.netnsFd, cookie);
      this.#pods.set(name, pod);
      this.kernel.slots.set(cookie, slot);
      this.kernel.ips.set(slot, [...mesh.get(name).addresses]);
      this.certify(name);
      direct.setPod(this.context, pod, { pins: "/pins", slot });
    }
  }

  pod(name: string): Pod {
    return this.#pods.get(name)!;
  }

  cookie(name: string, slot = [...this.#pods.keys()].indexOf(name)): bigint {
    return 77_000n + BigInt(slot);
  }

  /** Gives the workload a valid certificate; false: takes it away. */
  certify(name: string, valid = true): void {
    const identity = workloadIdentity(this.#mesh.get(name));
    const certificate = valid ? this.#ca.issue(identity) : undefined;
    this.context.certificates.update(spiffeId(identity), certificate);
  }

  /** A connection of `source` was relayed: may the next ones go past us? */
  offer(source: string, called: SocketAddress): void {
    const { direct } = this.context;
    direct.offer(this.context, this.#mesh.get(source), this.pod(source), called);
  }

  review(): void {
    this.context.direct.review(this.context);
  }

  /** Where `source` gets to by itself when it calls that address. */
  destinations(source: string, called: SocketAddress): string[] {
    return this.kernel.destinations(this.cookie(source), called);
  }
}

/** A connection as the destination's namespace lists it. */
export function tcpSocket(remote: SocketAddress, local: SocketAddress): TcpSocket {
  return {
    local,
    remote,
    state: TcpState.ESTABLISHED,
    bytesReceived: 10,
    bytesAcked: 20,
    family: 2,
    id: Buffer.alloc(0),
  };
}

/** A live connection of `client` to the pod in slot 1, unless `changes` say otherwise. */
export function directFlow(
  lab: DirectTestLab,
  {
    source,
    destination,
    ...changes
  }: Pick<DirectFlow, "source" | "destination"> & Partial<DirectFlow>,
): DirectFlow {
  return {
    cookie: 4711n,
    source,
    destination,
    service: undefined,
    netns: lab.cookie("client"),
    sourceSlot: 0,
    slot: 1,
    generation: 0,
    startedNs: process.hrtime.bigint(),
    accepted: true,
    closed: false,
    sourceLink: 0,
    link: 0,
    ...changes,
  };
}

const kinds = new Map<string, number>();

export function endedFlow(
  flow: DirectFlow,
  {
    received,
    sent,
    endedNs = flow.startedNs,
    aborted = false,
  }: { received: number; sent: number; endedNs?: bigint; aborted?: boolean },
): EndedFlow {
  const kind = `${flow.netns} ${flow.slot} ${formatSocketAddress(flow.destination)}`;
  const between = kinds.getOrInsertComputed(kind, () => kinds.size);
  const { cookie } = flow;
  return { flow, cookie, between, endedNs, aborted, bytesReceived: received, bytesSent: sent };
}

function verdictKey(netns: bigint, called: SocketAddress): string {
  return `${netns} ${formatSocketAddress(called)}`;
}
