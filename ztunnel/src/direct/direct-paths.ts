// The direct connections of this worker's making: what it has granted, granted again when the mesh changes
// and taken back when it must. Owns the grants; the kernel's programs act on them, and the sockets are the
// applications'.

import type { Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { DirectBackend, DirectFlow } from "@ambit/common/sys/bpf-direct.ts";
import { CONSTANTS } from "@ambit/common/sys/bpf-layout.gen.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { knownWorkload } from "../proxy/identify.ts";
import { ProxyError } from "../proxy/proxy-error.ts";
import type { Workload } from "../state/workload.ts";
import { decideDirect, type DirectDecision, type DirectPod, policyObjection } from "./decide.ts";
import { endConnections } from "./end-connections.ts";
import type { DirectKernel } from "./kernel.ts";

/** What the kernel has been told: this pod may call this address, and gets one of these. */
interface Grant {
  readonly source: DirectPod;
  readonly called: SocketAddress;
  readonly backends: readonly DirectBackend[];
}

/** Connections that may exist because of a grant, also of one that is gone. */
interface Permit {
  readonly source: DirectPod;
  readonly sourceIps: readonly Ip[];
  readonly target: DirectPod;
  readonly to: SocketAddress;
}

/** How long a pod is spared after the kernel had no room for a connection to it. */
const REST_MS = 10_000;
/** As many as verdicts fit; with more, connections go through ztunnel. */
const GRANTS_MAX = CONSTANTS.VERDICTS_MAX;
/** A grant leads to a few endpoints, most to one. */
const PERMITS_MAX = 4 * GRANTS_MAX;

export interface DirectPathsOptions {
  /** Throws an Error that says why there can be no direct connections. */
  open(pins: string): DirectKernel;
  cookieOf(netnsFd: number | undefined): bigint;
}

export class DirectPaths {
  readonly #options: DirectPathsOptions;
  readonly #pods = new Map<string, DirectPod>();
  readonly #grants = new Map<string, Grant>();
  readonly #permits = new Map<string, Permit>();
  /** Pods whose servers the programs do not see. */
  readonly #unseen = new WeakSet<Pod>();
  /** Slots that the kernel had no room for: since which generation, and until when they are spared. */
  readonly #rests = new Map<number, { readonly generation: number; readonly untilMs: number }>();
  #kernel: DirectKernel | undefined;
  /** Why there is no kernel; undefined while nobody asked for it. */
  #absence: string | undefined;
  #stopped = false;

  constructor(options: DirectPathsOptions) {
    this.#options = options;
  }

  /** undefined: no pod is steered by the kernel's programs, or they cannot be used for this. */
  get kernel(): DirectKernel | undefined {
    return this.#kernel;
  }

  get pods(): Iterable<DirectPod> {
    return this.#pods.values();
  }

  get grantCount(): number {
    return this.#grants.size;
  }

  /** A pod whose connections are steered, or no longer: `steering` undefined. */
  setPod(
    context: ProxyContext,
    pod: Pod,
    steering: { readonly pins: string; readonly slot: number } | undefined,
  ): void {
    const before = this.#pods.get(pod.uid);
    if (before !== undefined && before.pod === pod && before.slot === steering?.slot) return;
    this.removePod(context, pod.uid);
    if (steering === undefined || this.#openKernel(context, steering.pins) === undefined) return;
    const cookie = this.#options.cookieOf(pod.netnsFd);
    this.#pods.set(pod.uid, { pod, cookie, slot: steering.slot });
  }

  /** Takes back what the pod may do and what may be done to it, and ends its direct connections. */
  removePod(context: ProxyContext, uid: string): void {
    const left = this.#pods.get(uid);
    if (left === undefined || this.#kernel === undefined) return;
    this.#pods.delete(uid);
    const concerns = ({ source, target }: Permit) => source === left || target === left;
    const gone = [...this.#permits].filter(([, permit]) => concerns(permit));
    for (const [key, grant] of this.#grants) {
      const hasLeft = grant.backends.some(({ slot }) => slot === left.slot);
      if (grant.source === left || hasLeft) this.#withdraw(this.#kernel, key, grant);
    }
    this.#end(
      this.#kernel,
      gone.map(([key, permit]) => ({ key, permit })),
    );
    this.#regrant(context, this.#kernel);
  }

  /** A connection to `called` was allowed and made: from now on the kernel makes them, if it may. */
  offer(context: ProxyContext, source: Workload, pod: Pod, called: SocketAddress): void {
    const from = this.#pods.get(pod.uid);
    if (from === undefined || this.#kernel === undefined || this.#stopped) return;
    if (this.#mustRest(context, this.#kernel, from, called)) return;
    this.#grant(context, this.#kernel, { from, source, called });
  }

  /** The programs do not see the servers of this pod, so that they cannot guard them: no longer, then. */
  distrust(context: ProxyContext, pod: Pod): void {
    if (this.#unseen.has(pod)) return;
    this.#unseen.add(pod);
    const { namespace, name } = pod.info;
    context.log.warn("a pod is not called directly: it has servers outside the node's cgroup", {
      namespace,
      pod: name,
    });
    this.review(context);
  }

  /** What would be said of a connection, without saying it. */
  decide(context: ProxyContext, source: Workload, called: SocketAddress): DirectDecision {
    const pod = context.localPod(source);
    const from = pod && this.#pods.get(pod.uid);
    if (from === undefined || this.#kernel === undefined) {
      const why = this.#absence ?? "connections of the source are not steered by eBPF";
      return { direct: false, why };
    }
    return this.#decide(context, this.#kernel, { from, source, called }).decision;
  }

  /** Whether what is permitted still is, after a change of the mesh: ends what is not. */
  review(context: ProxyContext): void {
    const kernel = this.#kernel;
    if (kernel === undefined) return;
    for (const [key, grant] of this.#grants) {
      if (!this.#stillHolds(context, kernel, grant)) this.#withdraw(kernel, key, grant);
    }
    const forbidden = [...this.#permits].flatMap(([key, permit]) => {
      const why = objectionTo(context, permit);
      return why === undefined ? [] : [{ key, permit }];
    });
    this.#end(kernel, forbidden);
    this.#regrant(context, kernel);
  }

  /** Why such a connection would have to end; undefined when it may go on. */
  objectionTo(context: ProxyContext, flow: DirectFlow): ProxyError | undefined {
    const permit = this.#permitOf(flow);
    return permit === undefined ? podLeft() : objectionTo(context, permit);
  }

  /** Takes responsibility for connections that somebody else let through, a former process for instance. */
  adopt(): void {
    for (const flow of this.#kernel?.flows() ?? []) {
      const permit = this.#permitOf(flow);
      if (permit !== undefined) this.#permit(permit);
    }
  }

  /** Grants nothing more: a successor will. Connections that exist go on. */
  stop(): void {
    this.#stopped = true;
    if (this.#kernel === undefined) return;
    for (const [key, grant] of this.#grants) this.#withdraw(this.#kernel, key, grant);
  }

  #openKernel({ log }: ProxyContext, pins: string): DirectKernel | undefined {
    if (this.#kernel !== undefined || this.#absence !== undefined) return this.#kernel;
    try {
      this.#kernel = this.#options.open(pins);
    } catch (error) {
      this.#absence = errorMessage(error);
      log.warn("pods of this node cannot talk directly", { error: this.#absence });
    }
    return this.#kernel;
  }

  #decide(context: ProxyContext, kernel: DirectKernel, { from, source, called }: Call) {
    const generations = new Map<number, number>();
    const sourceIps = kernel.addresses(from.slot);
    const podOf = (workload: Workload) => {
      const pod = context.localPod(workload);
      const steered = pod && this.#pods.get(pod.uid);
      if (steered === undefined || this.#unseen.has(steered.pod)) return undefined;
      // Before we look whose the slot is, and decide: if it changes hands meanwhile, that is void.
      generations.set(steered.slot, kernel.generation(steered.slot));
      return kernel.slotOf(steered.cookie) === steered.slot ? steered : undefined;
    };
    const decision = decideDirect(context, { source, sourceIps, called, podOf });
    return { decision, generations, sourceIps };
  }

  /** A grant that is void though we did not revoke it: the kernel had no room for another connection. */
  #mustRest(
    { clock }: ProxyContext,
    kernel: DirectKernel,
    from: DirectPod,
    called: SocketAddress,
  ): boolean {
    const nowMs = clock.monotonicMs();
    const backends = this.#grants.get(grantKey(from, called))?.backends ?? [];
    for (const { slot, generation } of backends) {
      const current = kernel.generation(slot);
      const rest = this.#rests.get(slot);
      if (rest?.generation !== current && generation !== current) {
        this.#rests.set(slot, { generation: current, untilMs: nowMs + REST_MS });
        return true;
      }
      if (rest?.generation === current && rest.untilMs > nowMs) return true;
    }
    return false;
  }

  #grant(context: ProxyContext, kernel: DirectKernel, call: Call): void {
    const { from, called } = call;
    const { decision, generations, sourceIps } = this.#decide(context, kernel, call);
    const key = grantKey(from, called);
    if (!decision.direct || (this.#grants.size >= GRANTS_MAX && !this.#grants.has(key))) return;
    const backends = decision.targets.map(({ pod: { slot }, to, weight }) => {
      return { to, slot, weight, generation: generations.get(slot)! };
    });
    for (const { pod: target, to } of decision.targets) {
      if (!this.#permit({ source: from, sourceIps, target, to })) return;
    }
    try {
      kernel.allow({ netns: from.cookie, slot: from.slot }, called, backends);
      this.#grants.set(key, { source: from, called, backends });
    } catch (error) {
      const address = formatSocketAddress(called);
      context.log.warn("a direct path was not granted", {
        to: address,
        error: errorMessage(error),
      });
    }
  }

  /** undefined: one of the two pods is not here any more. */
  #permitOf({ netns, slot, source: { ip }, destination }: DirectFlow): Permit | undefined {
    const pods = [...this.#pods.values()];
    const source = pods.find(({ cookie }) => cookie === netns);
    const target = pods.find((pod) => pod.slot === slot);
    if (source === undefined || target === undefined) return undefined;
    return { source, sourceIps: [ip], target, to: destination };
  }

  /** False when there are too many to keep track of. */
  #permit(permit: Permit): boolean {
    const { source, target, to } = permit;
    const key = `${source.cookie} ${target.cookie} ${formatSocketAddress(to)}`;
    if (this.#permits.size >= PERMITS_MAX && !this.#permits.has(key)) return false;
    const sourceIps = new Set([...(this.#permits.get(key)?.sourceIps ?? []), ...permit.sourceIps]);
    this.#permits.set(key, { ...permit, sourceIps: [...sourceIps] });
    return true;
  }

  #stillHolds(context: ProxyContext, kernel: DirectKernel, grant: Grant): boolean {
    const { source: from, called, backends } = grant;
    const source = knownWorkload(context, from.pod);
    if (source === undefined) return false;
    const { decision } = this.#decide(context, kernel, { from, source, called });
    return decision.direct && sameBackends(decision.targets, backends);
  }

  /**
   * The verdict goes, and so does whatever was begun by it and has not been sent yet: a socket may keep
   * its SYN back as long as it likes.
   */
  #withdraw(kernel: DirectKernel, key: string, { source, called, backends }: Grant): void {
    this.#grants.delete(key);
    kernel.withdraw(source.cookie, called);
    for (const { slot } of backends) kernel.revoke(slot);
  }

  #end(kernel: DirectKernel, forbidden: readonly Forbidden[]): void {
    for (const { key, permit } of forbidden) {
      this.#permits.delete(key);
      kernel.revoke(permit.target.slot);
    }
    const endings = forbidden.map(({ permit }) => permit);
    endConnections(kernel, endings);
  }

  /** Writes again what still holds and was made void by a new generation of its destination. */
  #regrant(context: ProxyContext, kernel: DirectKernel): void {
    for (const { source: from, called, backends } of this.#grants.values()) {
      if (backends.every(({ slot, generation }) => kernel.generation(slot) === generation))
        continue;
      const source = knownWorkload(context, from.pod);
      if (source !== undefined) this.#grant(context, kernel, { from, source, called });
    }
  }
}

interface Call {
  readonly from: DirectPod;
  readonly source: Workload;
  readonly called: SocketAddress;
}

interface Forbidden {
  readonly key: string;
  readonly permit: Permit;
}

function podLeft(): ProxyError {
  return new ProxyError("POD_REMOVED", "connection closed: a pod left the mesh");
}

function grantKey({ cookie }: DirectPod, called: SocketAddress): string {
  return `${cookie} ${formatSocketAddress(called)}`;
}

function sameBackends(
  targets: Extract<DirectDecision, { direct: true }>["targets"],
  backends: readonly DirectBackend[],
): boolean {
  return (
    targets.length === backends.length &&
    targets.every(({ pod, to, weight }) =>
      backends.some(
        (backend) =>
          backend.slot === pod.slot &&
          backend.weight === weight &&
          backend.to.ip === to.ip &&
          backend.to.port === to.port,
      ),
    )
  );
}

/** Why connections that were permitted must end. What merely would not be permitted anew goes on. */
function objectionTo(context: ProxyContext, permit: Permit): ProxyError | undefined {
  const { source, sourceIps, target, to } = permit;
  const workloads = [source, target].map(({ pod }) => knownWorkload(context, pod));
  const [from, at] = workloads;
  if (from === undefined || at === undefined) {
    const { namespace, name } = (from === undefined ? source : target).pod.info;
    const why = `connection closed: workload ${namespace}/${name} was removed from the mesh`;
    return new ProxyError("WORKLOAD_REMOVED", why);
  }
  const why = policyObjection(context, { source: from, sourceIps }, at, to);
  if (why === undefined) return undefined;
  return new ProxyError("POLICY_CHANGED", `connection closed due to policy change: ${why}`);
}
