import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FakeClock } from "../testing/fake-clock.ts";
import { newStore, RawStream, resource, TestClient, TestServer } from "../testing/xds-harness.ts";
import { Signal } from "../testing/signal.ts";
import { sleep, systemClock } from "../process/clock.ts";
import { memoryLog } from "../telemetry/log.ts";
import { allowAnyone } from "./delta-server.ts";
import type { DeltaClientOptions, TerminationReason } from "./delta-types.ts";
import type { ResourceStore } from "./resource-store.ts";
import { TYPE_ADDRESS, TYPE_AUTHORIZATION, type XdsResource } from "./resource-type.ts";

const ON_DEMAND: Partial<DeltaClientOptions> = {
  types: [
    { typeUrl: TYPE_ADDRESS, mode: "on-demand", onUpdate: () => Promise.resolve([]) },
    { typeUrl: TYPE_AUTHORIZATION, mode: "wildcard", onUpdate: () => Promise.resolve([]) },
  ],
};

function put(store: ResourceStore, ...upserts: XdsResource[]): void {
  store.apply({ typeUrl: TYPE_ADDRESS, upserts, removed: [] });
}

function remove(store: ResourceStore, ...removed: string[]): void {
  store.apply({ typeUrl: TYPE_ADDRESS, upserts: [], removed });
}

/** Long enough for a client to reconnect at its first, 10 ms retry. */
async function tenTurns(): Promise<boolean> {
  for (let turn = 0; turn < 10; turn++) await sleep(systemClock, 10);
  return false;
}

describe("the client", () => {
  it("is in sync when every type had an accepted answer, and follows changes", async () => {
    const store = newStore();
    put(store, resource("a", "1"));
    using server = await TestServer.start(store);
    using client = new TestClient(server.address);
    await client.untilSynced();
    expect([...client.of(TYPE_ADDRESS)]).toEqual([["a", "1"]]);
    put(store, resource("a", "2"), resource("b", "1"));
    await client.untilEquals(TYPE_ADDRESS, { a: "2", b: "1" });
    remove(store, "a");
    await client.untilEquals(TYPE_ADDRESS, { b: "1" });
    expect(server.delta.sessions).toMatchObject([
      { proxy: "ztunnel-a.istio-system", type: "ztunnel", node: "node-a" },
    ]);
  });

  it("keeps its state while the server is away and catches up with a new one", async () => {
    const store = newStore();
    put(store, resource("kept", "1"), resource("changed", "1"), resource("removed", "1"));
    const first = await TestServer.start(store);
    const reasons: TerminationReason[] = [];
    using client = new TestClient(first.address, { onTermination: (r) => reasons.push(r) });
    await client.untilSynced();
    first.kill();
    put(store, resource("changed", "2"));
    remove(store, "removed");
    expect(client.of(TYPE_ADDRESS).size).toBe(3);
    using second = await TestServer.start(store, { port: first.grpc.port });
    await client.untilEquals(TYPE_ADDRESS, { kept: "1", changed: "2" });
    const resumed = client.updates.at(-1);
    expect(second.observer.counts["resources"]).toBe(1);
    expect(resumed).toMatchObject({ upserts: [{ name: "changed" }], removed: ["removed"] });
    expect(reasons.length).toBeGreaterThan(0);
  });

  it("declares after a reconnect only what it still holds", async () => {
    const store = newStore();
    put(store, resource("kept", "1"), resource("removed", "1"));
    const first = await TestServer.start(store);
    using client = new TestClient(first.address);
    await client.untilSynced();
    remove(store, "removed");
    await client.untilEquals(TYPE_ADDRESS, { kept: "1" });
    first.kill();
    using second = await TestServer.start(store, { port: first.grpc.port });
    await second.observer.signal.until(() => second.observer.counts["converged"] === 2);
    expect(second.observer.counts).toMatchObject({ resources: 0, removed: 0 });
  });

  it("finishes applying before it says to the next server what it holds", async () => {
    const store = newStore();
    put(store, resource("removed meanwhile", "1"));
    const first = await TestServer.start(store);
    const applying = Promise.withResolvers<void>();
    const mayApply = Promise.withResolvers<void>();
    using client = new TestClient(first.address);
    client.before = ({ upserts }) => {
      if (upserts.length === 0) return Promise.resolve();
      applying.resolve();
      return mayApply.promise;
    };
    await applying.promise;
    remove(store, "removed meanwhile");
    first.kill();
    const connected = Promise.withResolvers<void>();
    using second = await TestServer.start(store, {
      port: first.grpc.port,
      authenticate: (metadata) => (connected.resolve(), allowAnyone(metadata)),
    });
    const early = await Promise.race([connected.promise.then(() => true), tenTurns()]);
    expect(early).toBe(false);
    mayApply.resolve();
    await client.untilSynced();
    await client.untilEquals(TYPE_ADDRESS, {});
    expect(second.observer.counts["removed"]).toBe(1);
  });

  it("applies the good resources of a response, reports the bad and asks for them again", async () => {
    const store = newStore();
    put(store, resource("good", "1"), resource("bad", "1"));
    const first = await TestServer.start(store);
    using client = new TestClient(first.address);
    client.reject = (name) => (name === "bad" ? "not today" : undefined);
    await first.observer.signal.until(() => first.observer.rejections.length === 1);
    expect(first.observer.rejections).toEqual(["bad: not today"]);
    expect([...client.of(TYPE_ADDRESS).keys()]).toEqual(["good"]);
    expect(client.synced).toBe(false);
    first.kill();
    client.reject = () => undefined;
    using second = await TestServer.start(store, { port: first.grpc.port });
    await client.untilEquals(TYPE_ADDRESS, { good: "1", bad: "1" });
    await client.untilSynced();
    expect(second.observer.counts["resources"]).toBe(1);
  });

  it("reports a handler that fails instead of losing the update silently", async () => {
    const store = newStore();
    put(store, resource("a", "1"));
    using server = await TestServer.start(store);
    using client = new TestClient(server.address);
    client.reject = () => {
      throw new Error("handler broke");
    };
    await server.observer.signal.until(() => server.observer.rejections.length === 1);
    expect(server.observer.rejections).toEqual(["a: handler broke"]);
  });

  it("reads target and headers again for every connection", async () => {
    const store = newStore();
    const seen: unknown[] = [];
    const arrived = new Signal();
    const start = (port = 0) =>
      TestServer.start(store, {
        port,
        authenticate: (metadata) => {
          seen.push(metadata.get("authorization")[0]);
          arrived.changed();
          return Promise.resolve(() => undefined);
        },
      });
    const first = await start();
    let token = 0;
    using client = new TestClient(first.address, {
      metadata: () => Promise.resolve({ authorization: `Bearer ${++token}` }),
    });
    await client.untilSynced();
    first.delta.close();
    first.kill();
    using second = await start(first.grpc.port);
    await arrived.until(() => seen.length > 1);
    expect(seen[0]).toBe("Bearer 1");
    expect(seen.at(-1)).toBe(`Bearer ${token}`);
    expect(token).toBeGreaterThan(1);
    expect(second.grpc.port).toBe(first.grpc.port);
  });

  it("comes back at once when the server ends the stream cleanly", async () => {
    using server = await TestServer.start(newStore(), { streamAgeMs: 50 });
    const reasons: TerminationReason[] = [];
    const ended = new Signal();
    using client = new TestClient(server.address, {
      onTermination: (reason) => (reasons.push(reason), ended.changed()),
    });
    await ended.until(() => reasons.length === 3);
    expect(reasons).toEqual(["Complete", "Complete", "Complete"]);
    await client.untilSynced();
  });

  it("waits longer after each failed connection, up to 15 s", async () => {
    const clock = new FakeClock();
    const { log, lines } = memoryLog();
    const attempts: number[] = [];
    const start = clock.nowMs();
    using client = new TestClient("http://127.0.0.1:1", {
      clock,
      log: log.scope("xds"),
      target: () => {
        attempts.push(clock.nowMs() - start);
        return Promise.reject(new Error("no root certificate"));
      },
    });
    await clock.advance(0);
    await clock.advance(90_000);
    expect(client.synced).toBe(false);
    const waits = attempts.slice(1).map((at, index) => at - attempts[index]!);
    expect(waits.slice(0, 12)).toEqual([
      20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 15_000, 15_000,
    ]);
    expect(lines[0]).toContain("no root certificate");
  });

  it("refuses a connection that fails as a connection error, not as a stream's", async () => {
    const closedServer = await TestServer.start(newStore());
    closedServer.kill();
    const reason = Promise.withResolvers<TerminationReason>();
    using client = new TestClient(closedServer.address, { onTermination: reason.resolve });
    expect(await reason.promise).toBe("ConnectionError");
    expect(client.synced).toBe(false);
  });

  it("does not make others wait: a client that acknowledges nothing is sent one response", async () => {
    const store = newStore();
    put(store, resource("a", "0"));
    using server = await TestServer.start(store);
    using slow = new RawStream(server.target);
    slow.open(TYPE_ADDRESS);
    await slow.response(0);
    using client = new TestClient(server.address);
    await client.untilSynced();
    for (let round = 1; round <= 20; round++) {
      put(store, resource("a", `${round}`));
      await client.untilEquals(TYPE_ADDRESS, { a: `${round}` });
    }
    expect(slow.responses).toHaveLength(1);
    slow.ack(slow.responses[0]!);
    expect((await slow.response(1)).resources).toMatchObject([
      { name: "a", resource: { value: Buffer.from("20") } },
    ]);
  });
});

describe("on demand", () => {
  it("waits for names that exist, that do not, and that are aliases", async () => {
    const store = newStore();
    put(store, resource("uid-1", "w", { aliases: ["net/10.1.0.1"] }));
    using server = await TestServer.start(store);
    using client = new TestClient(server.address, ON_DEMAND);
    await client.untilSynced();
    expect(await client.client.demand(TYPE_ADDRESS, "uid-1")).toBe("present");
    expect(await client.client.demand(TYPE_ADDRESS, "net/10.1.0.1")).toBe("present");
    expect(await client.client.demand(TYPE_ADDRESS, "net/10.9.9.9")).toBe("absent");
    expect(() => client.client.demand(TYPE_AUTHORIZATION, "a/b")).toThrow(
      "not subscribed on demand",
    );
  });

  it("is told when what did not exist comes, and asks again on a new stream", async () => {
    const store = newStore();
    const first = await TestServer.start(store);
    using client = new TestClient(first.address, ON_DEMAND);
    expect(await client.client.demand(TYPE_ADDRESS, "net/10.1.0.1")).toBe("absent");
    put(store, resource("uid-1", "w", { aliases: ["net/10.1.0.1"] }));
    await client.untilEquals(TYPE_ADDRESS, { "uid-1": "w" });
    expect(await client.client.demand(TYPE_ADDRESS, "net/10.1.0.2")).toBe("absent");
    first.kill();
    put(store, resource("uid-2", "x", { aliases: ["net/10.1.0.2"] }));
    using second = await TestServer.start(store, { port: first.grpc.port });
    await second.observer.signal.until(() => second.observer.counts["connected"] === 1);
    expect(await client.client.demand(TYPE_ADDRESS, "net/10.1.0.2")).toBe("present");
  });

  it("asks once for a name that several wait for, across a reconnect", async () => {
    const store = newStore();
    put(store, resource("uid-1", "w"));
    const probe = await TestServer.start(store);
    const { port } = probe.grpc;
    probe.kill();
    using client = new TestClient(`http://127.0.0.1:${port}`, ON_DEMAND);
    const results = Promise.all([
      client.client.demand(TYPE_ADDRESS, "uid-1"),
      client.client.demand(TYPE_ADDRESS, "uid-1"),
      client.client.demand(TYPE_ADDRESS, "none"),
    ]);
    using server = await TestServer.start(store, { port });
    expect(await results).toEqual(["present", "present", "absent"]);
    expect(server.observer.counts["resources"]).toBe(1);
  });

  it("ends waits when it is closed", async () => {
    using client = new TestClient("http://127.0.0.1:1", ON_DEMAND);
    const waiting = client.client.demand(TYPE_ADDRESS, "uid-1");
    client.client.close();
    expect(await waiting).toBe("closed");
    expect(await client.client.demand(TYPE_ADDRESS, "uid-2")).toBe("closed");
  });
});

const NAMES = ["a", "b", "c", "d", "e"];
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ put: fc.constantFrom(...NAMES), text: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ remove: fc.constantFrom(...NAMES) }) },
  { weight: 1, arbitrary: fc.constant("restart" as const) },
  { weight: 1, arbitrary: fc.constant("end streams" as const) },
  { weight: 2, arbitrary: fc.constant("let it run" as const) },
);

describe("whatever happens to server and connections", () => {
  it("the client ends with the server's state", { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), fc.boolean(), async (steps, rejects) => {
        const store = newStore();
        let server = await TestServer.start(store);
        using client = new TestClient(server.address);
        let rejections = rejects ? 2 : 0;
        client.reject = (name) => (name === "c" && rejections-- > 0 ? "not yet" : undefined);
        try {
          for (const action of steps) {
            if (action === "let it run") await new Promise((resolve) => setImmediate(resolve));
            else if (action === "end streams" || action === "restart") {
              const { port } = server.grpc;
              if (action === "end streams") server.delta.close();
              server.kill();
              server = await TestServer.start(store, { port });
            } else if ("put" in action) put(store, resource(action.put, `${action.text}`));
            else remove(store, action.remove);
          }
          rejections = 0;
          put(store, resource("c", "final"), resource("end", "x"));
          const expected = [...store.type(TYPE_ADDRESS)!.values()].map(({ name, value }) => [
            name,
            new TextDecoder().decode(value),
          ]);
          await client.untilEquals(TYPE_ADDRESS, Object.fromEntries(expected));
        } finally {
          server.kill();
        }
      }),
      { numRuns: 40 },
    );
  });
});
