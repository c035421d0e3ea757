// The main thread's part of steering: ports that all workers can share, and the lease that tells the
// kernel's programs that we are alive, so that connections fail at once instead of waiting for us when
// we are not.

import { type Clock, sleep } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { type ListenerRole, pinFolder, Steering } from "@ambit/common/sys/bpf-steering.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { reservePort } from "@ambit/common/sys/sockets.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { Config } from "../config.ts";
import type { PodSteering } from "../proxy/pod-listeners.ts";
import type { Workers } from "../worker/host.ts";

/** A stopped or stuck process is found out after this long; a busy one must not be taken for one. */
export const LEASE_MS = 10_000;
export const RENEW_MS = 2_000;

const ROLES = ["OUTBOUND", "PLAINTEXT", "HBONE", "DNS"] as const satisfies ListenerRole[];

export interface SteeringOptions {
  readonly config: Pick<Config, "bpfFs" | "nodeName" | "workerThreads" | "ipv6">;
  readonly workers: Workers;
  readonly clock: Clock;
  readonly log: Logger;
}

/** A pod's steering while its listeners are being opened; then its ports need not be kept any more. */
export interface PreparedSteering extends Disposable {
  readonly steering: PodSteering;
}

export class NodeSteering {
  readonly #options: SteeringOptions;
  readonly #pins: string;
  readonly #closed = new AbortController();
  #renewing = false;

  constructor(options: SteeringOptions) {
    this.#options = options;
    const { bpfFs, nodeName = "" } = options.config;
    this.#pins = pinFolder(bpfFs, nodeName);
  }

  /** What workers need to take a pod's connections. Throws SystemError, such as ENOENT for absent maps. */
  prepare(slot: number, netnsFd: number | undefined): PreparedSteering {
    this.#renew();
    this.#keepRenewing();
    const { workerThreads, ipv6 } = this.#options.config;
    if (workerThreads === 1) {
      return { steering: { pins: this.#pins, slot }, [Symbol.dispose]: () => undefined };
    }
    const address = (ipv6 ? "::" : "0.0.0.0") as Ip;
    const kept = ROLES.map((role) => ({ role, ...reservePort(netnsFd, address) }));
    const ports = Object.fromEntries(kept.map(({ role, port }) => [role, port])) as Ports;
    return {
      steering: { pins: this.#pins, slot, ports },
      [Symbol.dispose]: () => kept.forEach(({ fd }) => closeFd(fd)),
    };
  }

  /** The lease runs out unless a successor has taken it. */
  close(): void {
    this.#closed.abort();
  }

  #renew(): void {
    using map = Steering.openPinned(this.#pins, ["lease"]);
    map.renewLease(LEASE_MS);
  }

  /** As long as every worker answers. */
  #keepRenewing(): void {
    if (this.#renewing) return;
    this.#renewing = true;
    void this.#renewUntilClosed();
  }

  async #renewUntilClosed(): Promise<void> {
    const { workers, clock, log } = this.#options;
    for (;;) {
      const slept = await sleep(clock, RENEW_MS, this.#closed.signal);
      if (slept === "aborted") return;
      try {
        await workers.askAll("ping", null);
        this.#renew();
      } catch (error) {
        log.warn("cannot renew the lease of steering", { error: errorMessage(error) });
      }
    }
  }
}

type Ports = Record<ListenerRole, number>;
