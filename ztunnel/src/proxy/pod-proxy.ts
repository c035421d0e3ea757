// Everything that runs for one enrolled pod: its listeners, its DNS proxy and its pool. Bound at once or
// not at all; drained or cut as one.

import type { ByteListener } from "@ambit/common/sys/accept-bytes.ts";
import { Drain, type DrainMode } from "@ambit/common/process/drain.ts";
import type { Timer } from "@ambit/common/process/clock.ts";
import { ByteDialer } from "@ambit/common/sys/byte-dialer.ts";
import { setNetSysctl } from "@ambit/common/sys/sysctl.ts";
import { SOCKS_PORT } from "../config.ts";
import { DnsProxy } from "../dns/server.ts";
import type { PodInfo } from "../state/mesh-state.ts";
import { PodAccount } from "../telemetry/pod-account.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { connectionBounds } from "./admit.ts";
import { socketOptions } from "./dial.ts";
import { HANDOVER_MS, PodListeners, type PodSteering } from "./pod-listeners.ts";
import { listenForSocks } from "./socks5.ts";
import { createPool } from "./tunnel.ts";

export interface PodOptions {
  readonly uid: string;
  readonly info: PodInfo;
  readonly netnsFd: number | undefined;
  /** Absent: connections come by address translation. */
  readonly steering?: PodSteering | undefined;
}

/** When connections come another way the old one is still in use until the node agent has ended it. */
const RETIRE_MS = 60_000;

export class PodProxy {
  readonly pod: Pod;
  readonly #context: ProxyContext;
  readonly #ownPorts = new Set<number>();
  readonly #retiring = new Map<PodListeners, Timer>();
  #listeners: PodListeners | undefined;
  #socks: ByteListener | undefined;
  #dns: DnsProxy | undefined;

  /** Opens every listener; throws SystemError, with nothing left open, when one cannot be bound. */
  constructor(context: ProxyContext, { uid, info, netnsFd, steering }: PodOptions) {
    this.#context = context;
    const drain = new Drain(context.clock);
    const dialer = new ByteDialer(netnsFd, socketOptions(context));
    const pool = createPool(context, () => this.pod);
    const account = new PodAccount(connectionBounds(context));
    this.pod = { uid, info, netnsFd, drain, dialer, pool, ownPorts: this.#ownPorts, account };
    try {
      if (context.config.dnsProxy) this.#dns = new DnsProxy(context, this.pod);
      if (context.config.socks) this.#socks = listenForSocks(context, this.pod);
      this.#listen(steering);
    } catch (error) {
      this.#close();
      throw error;
    }
  }

  /** Takes connections the way they come from now on; none is cut. Throws SystemError, as it was before. */
  steer(steering: PodSteering | undefined): void {
    const former = this.#listeners;
    if (former?.slot === steering?.slot) return former?.register();
    this.#listen(steering);
    if (former === undefined) return;
    const retired = this.#context.clock.after(RETIRE_MS, () => {
      this.#retiring.delete(former);
      former.close();
      this.#notePorts();
    });
    this.#retiring.set(former, retired);
    this.#notePorts();
  }

  /** Closes the listeners, then waits for connections and queries; immediate mode cuts them. */
  async stop(mode: DrainMode, deadlineMs: number): Promise<void> {
    const dns = this.#dns;
    let leftMs = deadlineMs;
    if (mode === "graceful") {
      this.#dns = undefined;
      const { clock } = this.#context;
      const beganMs = clock.monotonicMs();
      if (deadlineMs > HANDOVER_MS) await this.#listeners?.handOver(clock);
      leftMs -= clock.monotonicMs() - beganMs;
    }
    this.#close();
    const answered = mode === "graceful" ? dns?.drain() : undefined;
    const held = await this.pod.drain.drain(mode, leftMs);
    if (held !== "") {
      const { namespace, name } = this.pod.info;
      this.#context.log.warn("a pod's connections did not end when they were cut", {
        namespace,
        pod: name,
        held,
      });
    }
    await answered;
    this.pod.dialer.close();
    this.pod.pool.close();
  }

  /**
   * Connections that wait for a closing listener move to the ztunnel that shares its port (since Linux
   * 5.14): without that, handing over resets them.
   */
  #listen(steering: PodSteering | undefined): void {
    const { netnsFd } = this.pod;
    if (steering === undefined && this.#context.config.portReuse && netnsFd !== undefined) {
      setNetSysctl(netnsFd, "ipv4/tcp_migrate_req", "1");
    }
    this.#listeners = new PodListeners(this.#context, this.pod, this.#dns, steering);
    this.#notePorts();
  }

  #notePorts(): void {
    this.#ownPorts.clear();
    if (this.#socks !== undefined) this.#ownPorts.add(SOCKS_PORT);
    for (const listeners of this.#open()) {
      for (const port of listeners.ports) this.#ownPorts.add(port);
    }
  }

  *#open(): Iterable<PodListeners> {
    yield* this.#retiring.keys();
    if (this.#listeners !== undefined) yield this.#listeners;
  }

  #close(): void {
    for (const listeners of this.#open()) listeners.close();
    for (const timer of this.#retiring.values()) timer.cancel();
    this.#retiring.clear();
    this.#listeners = undefined;
    this.#socks?.close();
    this.#socks = undefined;
    this.#dns?.close();
    this.#dns = undefined;
  }
}
