// The books of direct connections: metrics and access lines of both reporters, as for any other connection.
// The kernel says when one has ended and what it carried; those that live are looked up now and then.
// One worker of a node keeps them.

import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { DirectFlow } from "@ambit/common/sys/bpf-direct.ts";
import type { EndedFlow } from "@ambit/common/sys/bpf-direct-ended.ts";
import { type TcpSocket, TcpState } from "@ambit/common/sys/sock-diag.ts";
import type { ConnectionSummary } from "../proxy/connection.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { knownWorkload } from "../proxy/identify.ts";
import type { ProxyError } from "../proxy/proxy-error.ts";
import type { Workload } from "../state/workload.ts";
import { ConnectionTelemetry, type Direction } from "../telemetry/connection-telemetry.ts";
import type { PodAccount, Seat } from "../telemetry/pod-account.ts";
import { trafficLabels } from "../telemetry/traffic-labels.ts";
import type { TrafficAccount } from "../telemetry/traffic-metrics.ts";
import type { DirectPod } from "./decide.ts";
import { flowFacts, flowId, type FlowParties } from "./flow-facts.ts";
import type { DirectKernel } from "./kernel.ts";

/** A connect() that nobody has answered for so long has been given up, or will go through ztunnel. */
const UNANSWERED_MS = 30_000;
/** Pods that left a while ago: what is told of their connections comes later than they go. */
const FORMER_PODS_MAX = 256;
/** A socket at the destination of a call that the programs did not see answered: not in an instant. */
const UNSEEN_MS = 1_000;
/** A client that has not closed a connection which its server has: as long as TCP itself waits for it. */
const CLOSED_MS = 60_000;
/** Kinds of connections that are counted without another look at who they are between. */
const ACCOUNTS_MAX = 4096;

const DIRECTIONS = ["outbound", "inbound"] as const satisfies Direction[];

interface LiveFlow {
  readonly flow: DirectFlow;
  readonly parties: FlowParties;
  /** As the client sees it. */
  readonly counters: { sent: number; received: number };
  readonly outbound: ConnectionTelemetry;
  readonly inbound: ConnectionTelemetry;
  /** Among their pods' connections. */
  readonly seats: readonly Seat[];
}

/** Who a flow is between, and their pods' accounts. */
interface KnownParties extends FlowParties {
  readonly accounts: Readonly<Record<Direction, PodAccount>>;
}

interface Account {
  /** When it was opened: who is who, and may do what, may have changed since. */
  readonly version: number;
  /** One for each reporter; none when nobody remembers the pods. */
  readonly series: readonly TrafficAccount[];
  readonly parties: KnownParties | undefined;
  /** What the mesh has against such connections: why one was cut. */
  readonly objection: ProxyError | undefined;
}

export class FlowAccounts {
  readonly #context: ProxyContext;
  readonly #kernel: DirectKernel;
  /** By the flow's cookie. */
  readonly #live = new Map<bigint, LiveFlow>();
  /** By what they are between. */
  readonly #accounts = new Map<number, Account>();
  /** Since when flows were seen closed, by cookie: those that the kernel has now. */
  #closed = new Map<bigint, bigint>();
  readonly #pods = new Map<bigint, DirectPod>();
  readonly #workloads = new WeakMap<Pod, Workload>();
  #podsChanged = 0;
  readonly #onUnseen: (pod: DirectPod) => void;

  /** `onUnseen` hears of pods with servers that the programs do not see. */
  constructor(context: ProxyContext, kernel: DirectKernel, onUnseen: (pod: DirectPod) => void) {
    this.#context = context;
    this.#kernel = kernel;
    this.#onUnseen = onUnseen;
  }

  /** The pods that there are now; those that were are remembered for a while. */
  know(pods: Iterable<DirectPod>): void {
    this.#podsChanged++;
    for (const pod of pods) {
      this.#pods.delete(pod.cookie);
      this.#pods.set(pod.cookie, pod);
      this.#workloadOf(pod);
    }
    for (const cookie of this.#pods.keys()) {
      if (this.#pods.size <= FORMER_PODS_MAX) break;
      this.#pods.delete(cookie);
    }
  }

  /** Books what has ended since the last call. */
  readEnded(): void {
    this.#kernel.readEnded((ended) => this.#book(ended));
  }

  /** Takes in what lives, forgets what the kernel has left behind. */
  sync(): void {
    this.readEnded();
    const flows = this.#kernel.flows();
    const sockets = this.#socketsOf(flows);
    const nowNs = process.hrtime.bigint();
    const seen = new Set<bigint>();
    this.#forgetClosed(flows, nowNs);
    for (const flow of flows) {
      if (flow.closed) continue;
      const socket = sockets.get(socketKey(flow.source, flow.destination));
      if (this.#isLeftBehind(flow, socket, nowNs)) {
        this.#kernel.forget(flow);
        continue;
      }
      if (!flow.accepted) {
        this.#suspect(flow, socket, nowNs);
        continue;
      }
      seen.add(flow.cookie);
      const live = this.#live.get(flow.cookie) ?? this.#open(flow, nowNs);
      if (live !== undefined && socket !== undefined) {
        live.counters.sent = socket.bytesReceived;
        live.counters.received = socket.bytesAcked;
      }
    }
    this.readEnded();
    for (const [cookie, live] of this.#live) if (!seen.has(cookie)) this.#close(live, undefined);
  }

  /** What has ended is in the books; the kernel has it until the client has heard of it, too. */
  #forgetClosed(flows: readonly DirectFlow[], nowNs: bigint): void {
    const closed = new Map<bigint, bigint>();
    for (const flow of flows) {
      if (!flow.closed) continue;
      const sinceNs = this.#closed.get(flow.cookie) ?? nowNs;
      if (Number(nowNs - sinceNs) / 1e6 > CLOSED_MS) this.#kernel.forget(flow);
      else closed.set(flow.cookie, sinceNs);
    }
    this.#closed = closed;
  }

  /** The connections that live, for the admin port. */
  summaries(): ConnectionSummary[] {
    this.sync();
    return [...this.#live.values()].flatMap((live) => [
      summary(live, "outbound"),
      summary(live, "inbound"),
    ]);
  }

  #book(ended: EndedFlow): void {
    const known = this.#live.size === 0 ? undefined : this.#live.get(ended.cookie);
    const account = this.#accountOf(ended);
    const why = account.objection !== undefined && ended.aborted ? account.objection : undefined;
    const isOrdinary = known === undefined && why === undefined;
    if (isOrdinary && !this.#context.telemetry.access.enabled("info")) {
      return add(account, ended.bytesReceived, ended.bytesSent);
    }
    const live = known ?? this.#open(ended.flow, ended.endedNs);
    if (live === undefined) return;
    live.counters.sent = ended.bytesReceived;
    live.counters.received = ended.bytesSent;
    this.#close(live, why);
  }

  #accountOf(ended: EndedFlow): Account {
    const account = this.#accounts.get(ended.between);
    return account?.version === this.#version ? account : this.#openAccount(ended);
  }

  /** Grows when the mesh or the pods have changed. */
  get #version(): number {
    return this.#context.state.version + this.#podsChanged;
  }

  #openAccount({ flow, between }: EndedFlow): Account {
    const { telemetry } = this.#context;
    const parties = this.#partiesOf(flow);
    const series = DIRECTIONS.flatMap((direction) => {
      if (parties === undefined) return [];
      return telemetry.metrics.account(trafficLabels(flowFacts(flow, parties, direction)));
    });
    const objection = this.#context.direct.objectionTo(this.#context, flow);
    const account: Account = { version: this.#version, series, parties, objection };
    if (this.#accounts.size >= ACCOUNTS_MAX) this.#accounts.clear();
    this.#accounts.set(between, account);
    return account;
  }

  /** undefined: nobody remembers its pods. `atNs` is now for it. */
  #open(flow: DirectFlow, atNs: bigint): LiveFlow | undefined {
    const parties = this.#partiesOf(flow);
    if (parties === undefined) return undefined;
    const { telemetry } = this.#context;
    const counters = { sent: 0, received: 0 };
    const startedMs = telemetry.clock.monotonicMs() - ageMs(flow, atNs);
    const seen = { outbound: counters, inbound: new Mirrored(counters) };
    const side = (direction: Direction) => {
      const facts = flowFacts(flow, parties, direction);
      return new ConnectionTelemetry(telemetry, facts, seen[direction], startedMs);
    };
    const [outbound, inbound] = [side("outbound"), side("inbound")];
    const seats = DIRECTIONS.map((direction) => {
      return parties.accounts[direction].past.open(direction, seen[direction]);
    });
    const live: LiveFlow = { flow, parties, counters, outbound, inbound, seats };
    this.#live.set(flow.cookie, live);
    return live;
  }

  #close({ flow, outbound, inbound, seats }: LiveFlow, why: ProxyError | undefined): void {
    this.#live.delete(flow.cookie);
    for (const seat of seats) seat[Symbol.dispose]();
    outbound.close(why);
    inbound.close(why);
  }

  #partiesOf({ netns, slot, service: called, destination }: DirectFlow): KnownParties | undefined {
    const from = this.#pods.get(netns);
    const at = this.#podAt(slot, destination);
    if (from === undefined || at === undefined) return undefined;
    const [source, target] = [this.#workloadOf(from), this.#workloadOf(at)];
    if (source === undefined || target === undefined) return undefined;
    const { services } = this.#context.state;
    const address = called && { network: source.network, ip: called.ip };
    const service = address && services.byAddress(address, source.namespace)?.service;
    const accounts = { outbound: from.pod.account, inbound: at.pod.account };
    return { source, target, accounts, ...(service && { service }) };
  }

  /** Slots are used again: the latest pod there, unless the address is another one's. */
  #podAt(slot: number, { ip }: SocketAddress): DirectPod | undefined {
    const had = [...this.#pods.values()].filter((pod) => pod.slot === slot);
    const owns = (pod: DirectPod) => this.#workloadOf(pod)?.addresses.includes(ip) ?? false;
    return had.findLast(owns) ?? had.at(-1);
  }

  #workloadOf({ pod }: DirectPod): Workload | undefined {
    const workload = knownWorkload(this.#context, pod);
    if (workload === undefined) return this.#workloads.get(pod);
    this.#workloads.set(pod, workload);
    return workload;
  }

  /** The application has the connection, and the programs at the node's cgroup were not asked. */
  #suspect(flow: DirectFlow, socket: TcpSocket | undefined, nowNs: bigint): void {
    if (socket?.state !== TcpState.ESTABLISHED || ageMs(flow, nowNs) < UNSEEN_MS) return;
    // Revoked while its SYN was under way: what has it is ztunnel.
    if (this.#kernel.generation(flow.slot) !== flow.generation) return;
    const pod = this.#podAt(flow.slot, flow.destination);
    if (pod !== undefined) this.#onUnseen(pod);
  }

  /** The destinations' sockets of these flows. */
  #socketsOf(flows: readonly DirectFlow[]): Map<string, TcpSocket> {
    const slots = new Set(flows.map(({ slot }) => slot));
    const found = new Map<string, TcpSocket>();
    for (const { slot, pod } of this.#pods.values()) {
      if (!slots.has(slot) || pod.drain.forced.aborted) continue;
      for (const socket of this.#kernel.connections(pod.netnsFd)) {
        found.set(socketKey(socket.remote, socket.local), socket);
      }
    }
    return found;
  }

  /** Its client never said that it gave up, or its server's cgroup went before its socket did. */
  #isLeftBehind(flow: DirectFlow, socket: TcpSocket | undefined, nowNs: bigint): boolean {
    return ageMs(flow, nowNs) > UNANSWERED_MS && socket === undefined;
  }
}

/** One that carried so much from the source to the destination, and back. */
function add({ series, parties }: Account, received: number, sent: number): void {
  for (const one of series) one.add(received, sent);
  if (parties === undefined) return;
  parties.accounts.outbound.past.add(received, sent);
  parties.accounts.inbound.past.add(sent, received);
}

function ageMs({ startedNs }: DirectFlow, nowNs: bigint): number {
  return Number(nowNs - startedNs) / 1e6;
}

class Mirrored {
  readonly #counters: { readonly sent: number; readonly received: number };

  constructor(counters: { readonly sent: number; readonly received: number }) {
    this.#counters = counters;
  }

  get sent(): number {
    return this.#counters.received;
  }

  get received(): number {
    return this.#counters.sent;
  }
}

function summary(live: LiveFlow, direction: Direction): ConnectionSummary {
  const { flow, parties, outbound, inbound } = live;
  const { counters } = direction === "outbound" ? outbound : inbound;
  return {
    id: flowId(flow),
    direction,
    workload: (direction === "outbound" ? parties.source : parties.target).uid,
    src: formatSocketAddress(flow.source),
    originalDst: formatSocketAddress(flow.service ?? flow.destination),
    actualDst: formatSocketAddress(flow.destination),
    protocol: "DIRECT",
    bytesSent: counters.sent,
    bytesReceived: counters.received,
  };
}

function socketKey(source: SocketAddress, destination: SocketAddress): string {
  return `${formatSocketAddress(source)} ${formatSocketAddress(destination)}`;
}
