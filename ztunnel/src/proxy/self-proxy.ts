// Tunnels to ztunnel itself, in its own namespace and with its own identity: so its metrics are scraped
// over HBONE as those of any workload (ztunnel §2.1). Takes tunnels only, and opens none.

import { HBONE_PORT } from "@ambit/common/hbone/limits.ts";
import { Drain, type DrainMode } from "@ambit/common/process/drain.ts";
import type { ByteListener } from "@ambit/common/sys/accept-bytes.ts";
import { ByteDialer } from "@ambit/common/sys/byte-dialer.ts";
import type { PodInfo } from "../state/mesh-state.ts";
import { PodAccount } from "../telemetry/pod-account.ts";
import { acceptConnections, listenIn } from "./accept.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { socketOptions } from "./dial.ts";
import { connectionBounds } from "./admit.ts";
import { handleInbound } from "./inbound.ts";
import { createPool } from "./tunnel.ts";

export class SelfProxy {
  readonly pod: Pod;
  readonly #listener: ByteListener;

  /** Throws SystemError when the port cannot be bound. */
  constructor(shared: ProxyContext, info: PodInfo) {
    // Nothing is redirected here, and nobody's address but our own may be used.
    const config = { ...shared.config, originalSource: "never", packetMark: undefined } as const;
    const context: ProxyContext = { ...shared, config };
    this.pod = {
      uid: "ztunnel",
      info,
      netnsFd: undefined,
      dialer: new ByteDialer(undefined, socketOptions(context)),
      pool: createPool(context, () => this.pod),
      drain: new Drain(context.clock),
      ownPorts: new Set([HBONE_PORT]),
      account: new PodAccount(connectionBounds(shared)),
    };
    const options = { port: HBONE_PORT, steered: false, relayed: false };
    const fd = listenIn(context, this.pod, options);
    this.#listener = acceptConnections(
      fd,
      (socket) => void handleInbound(context, this.pod, socket),
    );
  }

  async stop(mode: DrainMode, deadlineMs: number): Promise<void> {
    this.#listener.close();
    await this.pod.drain.drain(mode, deadlineMs);
    this.pod.dialer.close();
    this.pod.pool.close();
  }
}
