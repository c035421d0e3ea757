// Pooled tunnels of one workload (ztunnel §1.8): CONNECT streams share a connection per key. One dial
// per key at a time; a connection that reached its stream cap is never pooled again.

import type { Clock, Timer } from "../process/clock.ts";
import type { Ip } from "../net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "../net/socket-address.ts";
import {
  type HboneClientConnection,
  TunnelError,
  type TunnelRequest,
  type TunnelResponse,
} from "./client.ts";

/** Everything that must be equal for two tunnels to share a connection. */
export interface PoolKey {
  readonly sourceIdentity: string;
  readonly allowedIdentities: readonly string[];
  readonly nextHop: SocketAddress;
  readonly sourceIp: Ip;
  /** The workload behind the address: a reused pod IP must not reuse a tunnel. */
  readonly workloadUid?: string;
}

export interface PoolOptions {
  /** Connects, verifies and speaks HTTP/2; rejects when it cannot. `closed` must be called at its end. */
  dial(key: PoolKey, closed: () => void): Promise<HboneClientConnection>;
  readonly streamsPerConnectionMax: number;
  /** A connection unused (no check-out, no check-in) this long is released; its streams go on. */
  readonly unusedReleaseMs: number;
  readonly clock: Clock;
}

/** Connections kept over all keys; the least recently used is released beyond it. */
export const POOLED_CONNECTIONS_MAX = 500;

/** A peer that closes fresh connections at once must not make us dial for ever. */
const DIALS_PER_TUNNEL_MAX = 3;

interface Pooled {
  readonly key: PoolKey;
  readonly keyText: string;
  readonly connection: HboneClientConnection;
  usedMs: number;
  timer: Timer | undefined;
}

export class TunnelPool {
  readonly #options: PoolOptions;
  /** Written only when a connection comes or goes: tunnels are too many (collections/churn-set.ts). */
  readonly #pooled = new Map<string, Pooled>();
  readonly #dialing = new Map<string, Promise<void>>();
  /** Every live connection, pooled or only finishing its streams. */
  readonly #live = new Map<HboneClientConnection, PoolKey>();
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  get liveConnections(): number {
    return this.#live.size;
  }

  get pooledConnections(): number {
    return this.#pooled.size;
  }

  /** Opens a tunnel on a pooled connection, dialing when there is none that is ready. */
  async openTunnel(key: PoolKey, request: TunnelRequest): Promise<TunnelResponse> {
    const keyText = poolKeyText(key);
    for (let dials = 0; dials < DIALS_PER_TUNNEL_MAX;) {
      const pooled = this.#checkout(keyText);
      if (pooled !== undefined) return pooled.connection.openTunnel(request);
      const dialing = this.#dialing.get(keyText);
      if (dialing === undefined) dials++;
      await (dialing ?? this.#dial(key, keyText));
    }
    throw new TunnelError(`the peer closed ${DIALS_PER_TUNNEL_MAX} fresh tunnels before use`);
  }

  /** Releases and cuts the connections whose key matches: the workload is gone, or its certificate. */
  closeWhere(matches: (key: PoolKey) => boolean): void {
    for (const [connection, key] of this.#live) {
      if (!matches(key)) continue;
      this.#release(poolKeyText(key), connection);
      connection.close();
    }
  }

  /** Cuts everything. */
  close(): void {
    this.#closed = true;
    this.closeWhere(() => true);
  }

  #checkout(keyText: string): Pooled | undefined {
    const pooled = this.#pooled.get(keyText);
    if (pooled === undefined) return undefined;
    if (!pooled.connection.ready) {
      this.#release(keyText, pooled.connection);
      return undefined;
    }
    this.#afterUse(pooled);
    return pooled;
  }

  /** Called with the stream about to be opened: one at the cap uses the connection for the last time. */
  #afterUse(pooled: Pooled): void {
    const { connection, keyText } = pooled;
    const cap = Math.min(this.#options.streamsPerConnectionMax, connection.streamsMax);
    if (connection.activeStreams + 1 >= cap) {
      this.#release(keyText, connection);
      return;
    }
    pooled.usedMs = this.#options.clock.monotonicMs();
  }

  #keep(key: PoolKey, keyText: string, connection: HboneClientConnection): void {
    if (this.#pooled.size >= POOLED_CONNECTIONS_MAX) this.#releaseOldest();
    const usedMs = this.#options.clock.monotonicMs();
    const pooled: Pooled = { key, keyText, connection, usedMs, timer: undefined };
    this.#pooled.set(keyText, pooled);
    this.#releaseWhenUnused(pooled);
  }

  /** Looks after as long as the connection may yet be unused, not after every use. */
  #releaseWhenUnused(pooled: Pooled): void {
    const { clock, unusedReleaseMs } = this.#options;
    const leftMs = pooled.usedMs + unusedReleaseMs - clock.monotonicMs();
    if (leftMs <= 0) this.#release(pooled.keyText, pooled.connection);
    else pooled.timer = clock.after(leftMs, () => this.#releaseWhenUnused(pooled));
  }

  #releaseOldest(): void {
    let oldest: Pooled | undefined;
    for (const pooled of this.#pooled.values()) {
      if (oldest === undefined || pooled.usedMs < oldest.usedMs) oldest = pooled;
    }
    if (oldest !== undefined) this.#release(oldest.keyText, oldest.connection);
  }

  /** Takes a connection out of the pool; it ends when its last stream does. */
  #release(keyText: string, connection: HboneClientConnection): void {
    const pooled = this.#pooled.get(keyText);
    if (pooled?.connection === connection) {
      pooled.timer?.cancel();
      this.#pooled.delete(keyText);
    }
    queueMicrotask(() => connection.drain());
  }

  /** Dials and pools one connection; everyone who needs this key waits for the same attempt. */
  #dial(key: PoolKey, keyText: string): Promise<void> {
    const attempt = this.#connect(key, keyText)
      .then((connection) => this.#keep(key, keyText, connection))
      .finally(() => this.#dialing.delete(keyText));
    this.#dialing.set(keyText, attempt);
    return attempt;
  }

  async #connect(key: PoolKey, keyText: string): Promise<HboneClientConnection> {
    if (this.#closed) throw new Error("the tunnel pool is closed");
    let ended = false;
    const connection: HboneClientConnection = await this.#options.dial(key, () => {
      ended = true;
      this.#live.delete(connection);
      this.#release(keyText, connection);
    });
    if (this.#closed) {
      connection.close();
      throw new Error("the tunnel pool is closed");
    }
    if (!ended) this.#live.set(connection, key);
    return connection;
  }
}

function poolKeyText(key: PoolKey): string {
  return [
    key.sourceIdentity,
    key.sourceIp,
    formatSocketAddress(key.nextHop),
    key.workloadUid ?? "",
    ...key.allowedIdentities,
  ].join("|");
}
