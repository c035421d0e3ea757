// Which pod addresses kubelet may probe past ztunnel. Keeps the wanted set and writes it whole, so a
// write also mends what others changed. An address belongs to the pod that claimed it last: a late
// removal never takes it from its new owner.

import { isDeepStrictEqual } from "node:util";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { ProbeTarget, ProbeTargets, RedirectionBackend } from "../rules/backend.ts";

export class ProbeExemption {
  readonly #backend: RedirectionBackend;
  readonly #targets = new Map<Ip, ProbeTarget>();
  #written: ProbeTargets | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(backend: RedirectionBackend) {
    this.#backend = backend;
  }

  /**
   * Takes over at start: `targets` are the enrolled pods' addresses. When they are not `complete`
   * (an address is not known yet), what the kernel has is kept besides.
   */
  async start(targets: ProbeTargets, complete: boolean): Promise<void> {
    const kept = complete ? [] : await this.#backend.readHost();
    for (const [ip, target] of [...kept, ...targets]) this.#targets.set(ip, target);
    await this.#write();
  }

  /** Makes `ips` the pod's only exempt addresses; `slot`: what captures the pod, where that is eBPF. */
  async set(uid: string, ips: readonly Ip[], slot?: number): Promise<void> {
    for (const [ip, owner] of this.#targets) {
      if (owner.uid === uid && !ips.includes(ip)) this.#targets.delete(ip);
    }
    for (const ip of ips) this.#targets.set(ip, { uid, slot });
    await this.#write();
  }

  /** The way in which the node exempts probes has changed. */
  async renew(): Promise<void> {
    this.#written = undefined;
    await this.#write();
  }

  async remove(uid: string): Promise<void> {
    await this.set(uid, []);
  }

  /** One write at a time; whoever waits is served by the next one. */
  #write(): Promise<void> {
    const next = this.#writing.then(
      () => this.#writeOnce(),
      () => this.#writeOnce(),
    );
    this.#writing = next;
    return next;
  }

  async #writeOnce(): Promise<void> {
    const wanted = new Map(this.#targets);
    if (this.#written !== undefined && sameTargets(this.#written, wanted)) return;
    this.#written = undefined;
    await this.#backend.installHost(wanted);
    this.#written = wanted;
  }
}

function sameTargets(a: ProbeTargets, b: ProbeTargets): boolean {
  return a.size === b.size && [...a].every(([ip, target]) => isDeepStrictEqual(b.get(ip), target));
}
