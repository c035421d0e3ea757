import { duplexPair } from "node:stream";
import { describe, expect, it } from "vitest";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { parseIp } from "../net/ip.ts";
import { ErrorCode } from "../http2/protocol.ts";
import { FakeClock } from "../testing/fake-clock.ts";
import { HboneClientConnection, type TunnelResponse } from "./client.ts";
import { DEFAULT_HBONE_SETTINGS } from "./limits.ts";
import { POOLED_CONNECTIONS_MAX, type PoolKey, TunnelPool } from "./pool.ts";
import { HboneServerConnection } from "./server.ts";

const settings = DEFAULT_HBONE_SETTINGS;
const request = { authority: "10.0.0.1:80", headers: {} };
const RELEASE_MS = 300_000;

const KEY: PoolKey = {
  sourceIdentity: "spiffe://td/ns/a/sa/b",
  allowedIdentities: ["spiffe://td/ns/c/sa/d"],
  nextHop: { ip: parseIp("10.0.0.1")!, port: 15_008 },
  sourceIp: parseIp("10.0.0.2")!,
  workloadUid: "cluster//Pod/a/b",
};

/** A pool whose dials end in servers of this process. */
class PoolHarness {
  readonly clock = new FakeClock();
  readonly servers: HboneServerConnection[] = [];
  readonly dialed: PoolKey[] = [];
  /** Called before a dial succeeds. */
  beforeDial: () => Promise<void> = () => Promise.resolve();
  /** Called with each fresh connection's server, before anyone uses it. */
  onServer: (server: HboneServerConnection) => void = () => undefined;
  readonly pool: TunnelPool;

  constructor(streamsPerConnectionMax = 100) {
    this.pool = new TunnelPool({
      streamsPerConnectionMax,
      unusedReleaseMs: RELEASE_MS,
      clock: this.clock,
      dial: (key, closed) => this.#dial(key, closed),
    });
  }

  async #dial(key: PoolKey, closed: () => void): Promise<HboneClientConnection> {
    this.dialed.push(key);
    await this.beforeDial();
    const { clock } = this;
    const [near, far] = duplexPair();
    const server = new HboneServerConnection(asByteSocket(far), {
      settings,
      clock,
      onConnect: (connect) => connect.accept(),
    });
    this.servers.push(server);
    this.onServer(server);
    return new HboneClientConnection(asByteSocket(near), { settings, clock, onClose: closed });
  }

  open(key: Partial<PoolKey> = {}): Promise<TunnelResponse> {
    return this.pool.openTunnel({ ...KEY, ...key }, request);
  }
}

describe("a key", () => {
  it.each<[string, Partial<PoolKey>]>([
    ["source identity", { sourceIdentity: "spiffe://td/ns/a/sa/other" }],
    ["allowed identities", { allowedIdentities: [] }],
    ["order of identities", { allowedIdentities: ["spiffe://x", "spiffe://td/ns/c/sa/d"] }],
    ["next hop's address", { nextHop: { ip: parseIp("10.0.0.9")!, port: 15_008 } }],
    ["next hop's port", { nextHop: { ip: parseIp("10.0.0.1")!, port: 15_009 } }],
    ["client address", { sourceIp: parseIp("10.0.0.3")! }],
    ["workload", { workloadUid: "cluster//Pod/a/other" }],
  ])("that differs in its %s gets a connection of its own", async (_, other) => {
    const harness = new PoolHarness();
    await harness.open();
    await harness.open(other);
    await harness.open();
    expect(harness.dialed).toHaveLength(2);
  });

  it("is dialed once for all who wait, and another key does not wait with them", async () => {
    const harness = new PoolHarness();
    const slow = Promise.withResolvers<void>();
    harness.beforeDial = () => slow.promise;
    const waiting = Promise.all([harness.open(), harness.open(), harness.open()]);
    harness.beforeDial = () => Promise.resolve();
    await harness.open({ sourceIdentity: "other" });
    expect(harness.pool.pooledConnections).toBe(1);
    slow.resolve();
    await waiting;
    expect(harness.dialed).toHaveLength(2);
  });

  it("whose dial failed tells all who waited, and is tried anew by the next", async () => {
    const harness = new PoolHarness();
    harness.beforeDial = () => Promise.reject(new Error("no route"));
    const results = await Promise.allSettled([harness.open(), harness.open()]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(harness.dialed).toHaveLength(1);
    harness.beforeDial = () => Promise.resolve();
    expect((await harness.open()).status).toBe(200);
  });
});

describe("a pooled connection", () => {
  it("carries as many streams as the cap allows, then is never used again", async () => {
    const harness = new PoolHarness(3);
    const opened = [await harness.open(), await harness.open(), await harness.open()];
    expect(harness.pool.pooledConnections).toBe(0);
    for (const { stream } of opened.slice(1)) stream.reset(ErrorCode.CANCEL);
    await harness.open();
    expect(harness.dialed).toHaveLength(2);
    expect(harness.pool.liveConnections).toBe(2);
  });

  it("is replaced when the peer sends GOAWAY; its streams go on", async () => {
    const harness = new PoolHarness();
    const { stream } = await harness.open();
    harness.servers[0]!.drain();
    const again = async () => {
      (await harness.open()).stream.reset(ErrorCode.CANCEL);
      return harness.dialed.length;
    };
    await expect.poll(again).toBe(2);
    expect(stream.closed).toBe(false);
    stream.reset(ErrorCode.CANCEL);
    await expect.poll(() => harness.pool.liveConnections).toBe(1);
  });

  it("is replaced when it broke", async () => {
    const harness = new PoolHarness();
    await harness.open();
    harness.servers[0]!.destroy();
    await expect.poll(() => harness.pool.liveConnections).toBe(0);
    expect((await harness.open()).status).toBe(200);
    expect(harness.dialed).toHaveLength(2);
  });

  it("is released after its time without use, counted from the last use", async () => {
    const harness = new PoolHarness();
    (await harness.open()).stream.reset(ErrorCode.CANCEL);
    await harness.clock.advance(RELEASE_MS - 1);
    expect(harness.pool.pooledConnections).toBe(1);
    (await harness.open()).stream.reset(ErrorCode.CANCEL);
    await harness.clock.advance(RELEASE_MS - 1);
    expect(harness.pool.pooledConnections).toBe(1);
    await harness.clock.advance(1);
    expect(harness.pool.pooledConnections).toBe(0);
    await expect.poll(() => harness.pool.liveConnections).toBe(0);
  });

  it("released with a stream open ends only with that stream", async () => {
    const harness = new PoolHarness();
    const { stream } = await harness.open();
    await harness.clock.advance(RELEASE_MS);
    expect([harness.pool.pooledConnections, stream.closed]).toEqual([0, false]);
    stream.reset(ErrorCode.CANCEL);
    await expect.poll(() => harness.pool.liveConnections).toBe(0);
  });
});

describe("the pool", () => {
  it("keeps its bound of connections and lets the least recently used go", async () => {
    const harness = new PoolHarness();
    for (let i = 0; i <= POOLED_CONNECTIONS_MAX; i++) {
      await harness.open({ workloadUid: `w${i}` });
      await harness.clock.advance(1);
      if (i === 1) await harness.open({ workloadUid: "w0" });
    }
    expect(harness.pool.pooledConnections).toBe(POOLED_CONNECTIONS_MAX);
    const before = harness.dialed.length;
    await harness.open({ workloadUid: "w0" });
    expect(harness.dialed).toHaveLength(before);
    await harness.open({ workloadUid: "w1" });
    expect(harness.dialed).toHaveLength(before + 1);
  });

  it("gives up on a peer that closes each fresh connection", async () => {
    const harness = new PoolHarness();
    harness.onServer = (server) => server.destroy();
    await expect(
      harness.open().then(async () => {
        await harness.clock.advance(0);
        return harness.open();
      }),
    ).rejects.toThrow(/CONNECT failed|closed 3 fresh tunnels/);
    expect(harness.dialed.length).toBeLessThanOrEqual(3);
  });

  it("that is closed cuts what lives and dials no more", async () => {
    const harness = new PoolHarness();
    const { stream } = await harness.open();
    harness.pool.close();
    expect(stream.closed).toBe(true);
    await expect(harness.open()).rejects.toThrow("the tunnel pool is closed");
  });

  it("closed while a dial is under way cuts what the dial brings", async () => {
    const harness = new PoolHarness();
    const slow = Promise.withResolvers<void>();
    harness.beforeDial = () => slow.promise;
    const opening = harness.open();
    harness.pool.close();
    slow.resolve();
    await expect(opening).rejects.toThrow("the tunnel pool is closed");
    expect(harness.pool.liveConnections).toBe(0);
  });
});
