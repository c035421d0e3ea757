// Everything that runs for one enrolled pod: its three listeners, its DNS proxy and its pool. Bound at
// once or not at all; drained or cut as one.

import type net from "node:net";
import { HBONE_PORT } from "@ambit/common/hbone/limits.ts";
import { Drain, type DrainMode } from "@ambit/common/process/drain.ts";
import { ByteDialer } from "@ambit/common/sys/byte-dialer.ts";
import { setNetSysctl } from "@ambit/common/sys/sysctl.ts";
import { DNS_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from "../config.ts";
import { DnsProxy } from "../dns/server.ts";
import type { PodInfo } from "../state/mesh-state.ts";
import { openListener, openTunnelListener } from "./accept.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { socketOptions } from "./dial.ts";
import { handleInboundPassthrough } from "./inbound-passthrough.ts";
import { handleInbound } from "./inbound.ts";
import { handleOutbound } from "./outbound.ts";
import { createPool } from "./tunnel.ts";

export interface PodOptions {
  readonly uid: string;
  readonly info: PodInfo;
  readonly netnsFd: number | undefined;
}

export class PodProxy {
  readonly pod: Pod;
  readonly #context: ProxyContext;
  readonly #servers: net.Server[] = [];
  #dns: DnsProxy | undefined;

  /** Opens every listener; throws SystemError, with nothing left open, when one cannot be bound. */
  constructor(context: ProxyContext, { uid, info, netnsFd }: PodOptions) {
    this.#context = context;
    const drain = new Drain(context.clock);
    const dialer = new ByteDialer(netnsFd, socketOptions(context));
    const pool = createPool(context, () => this.pod);
    this.pod = { uid, info, netnsFd, drain, dialer, pool };
    try {
      this.#listen();
    } catch (error) {
      this.#close();
      throw error;
    }
  }

  /** Closes the listeners, then waits for connections and queries; immediate mode cuts them. */
  async stop(mode: DrainMode, deadlineMs: number): Promise<void> {
    const dns = this.#dns;
    if (mode === "graceful") this.#dns = undefined;
    this.#close();
    const answered = mode === "graceful" ? dns?.drain() : undefined;
    await this.pod.drain.drain(mode, deadlineMs);
    await answered;
    this.pod.dialer.close();
    this.pod.pool.close();
  }

  /**
   * Connections that wait for a closing listener move to the ztunnel that shares its port (since Linux
   * 5.14): without that, handing over resets them.
   */
  #listen(): void {
    const context = this.#context;
    const { pod } = this;
    if (context.config.portReuse && pod.netnsFd !== undefined) {
      setNetSysctl(pod.netnsFd, "ipv4/tcp_migrate_req", "1");
    }
    this.#servers.push(
      openListener(context, pod, OUTBOUND_PORT, (socket) => {
        void handleOutbound(context, pod, socket);
      }),
      openListener(context, pod, INBOUND_PLAINTEXT_PORT, (socket) => {
        void handleInboundPassthrough(context, pod, socket);
      }),
      openTunnelListener(context, pod, HBONE_PORT, (socket) => {
        void handleInbound(context, pod, socket);
      }),
    );
    if (context.config.dnsProxy) this.#dns = new DnsProxy(context, pod, DNS_PORT);
  }

  #close(): void {
    for (const server of this.#servers) server.close();
    this.#servers.length = 0;
    this.#dns?.close();
    this.#dns = undefined;
  }
}
