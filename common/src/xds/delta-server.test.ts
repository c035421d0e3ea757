import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import type { DeltaDiscoveryResponse } from "@ambit/api/gen/envoy/discovery_pb.ts";
import { FakeClock } from "../testing/fake-clock.ts";
import { newStore, RawStream, resource, TestServer } from "../testing/xds-harness.ts";
import { allowAnyone } from "./delta-server.ts";
import { RpcError } from "./grpc-service.ts";
import {
  ACKNOWLEDGE_TIMEOUT_MS,
  FIRST_REQUEST_TIMEOUT_MS,
  REJECTIONS_KEPT,
  SMALL_RESPONSE_BYTES,
  STREAM_AGE_MS_MAX,
} from "./limits.ts";
import type { ResourceStore } from "./resource-store.ts";
import { TYPE_ADDRESS, TYPE_AUTHORIZATION, type XdsResource } from "./resource-type.ts";

const names = (response: DeltaDiscoveryResponse) => response.resources.map(({ name }) => name);

function put(store: ResourceStore, ...upserts: XdsResource[]): void {
  store.apply({ typeUrl: TYPE_ADDRESS, upserts, removed: [] });
}

function remove(store: ResourceStore, ...removed: string[]): void {
  store.apply({ typeUrl: TYPE_ADDRESS, upserts: [], removed });
}

/** Acknowledged changes of another resource follow everything the server had to say before. */
async function nextResponse(raw: RawStream, index: number): Promise<DeltaDiscoveryResponse> {
  const response = await raw.response(index);
  raw.ack(response);
  return response;
}

describe("a wildcard client", () => {
  it("gets everything, then only what changes", async () => {
    const store = newStore();
    put(store, resource("a", "1", { aliases: ["/10.0.0.1"] }), resource("b", "1"));
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    const first = await nextResponse(raw, 0);
    expect(names(first)).toEqual(["a", "b"]);
    expect(first.resources[0]).toMatchObject({
      aliases: ["/10.0.0.1"],
      version: resource("a", "1").version,
      resource: { typeUrl: TYPE_ADDRESS, value: Buffer.from("1") },
    });
    put(store, resource("a", "2"), resource("b", "1"));
    expect(names(await nextResponse(raw, 1))).toEqual(["a"]);
    remove(store, "b");
    expect((await nextResponse(raw, 2)).removedResources).toEqual(["b"]);
  });

  it("gets an empty answer from an empty mesh, so that it knows it is in sync", async () => {
    using server = await TestServer.start(newStore());
    using raw = new RawStream(server.target);
    raw.open(TYPE_AUTHORIZATION);
    const { resources, removedResources, typeUrl } = await raw.response(0);
    expect({ resources, removedResources, typeUrl }).toEqual({
      resources: [],
      removedResources: [],
      typeUrl: TYPE_AUTHORIZATION,
    });
  });

  it("gets a large mesh whole, and after changes what it is then", async () => {
    const store = newStore();
    const many = (from: number, to: number, text: string) =>
      Array.from({ length: to - from }, (_, i) => resource(`pod-${from + i}`, text));
    put(store, ...many(0, 300, "1"));
    using server = await TestServer.start(store);
    const whole = async () => {
      using raw = new RawStream(server.target);
      raw.open(TYPE_ADDRESS);
      const { resources } = await raw.response(0);
      return resources.map(({ name, version }) => `${name}@${version}`).sort();
    };
    const expected = () =>
      [...store.type(TYPE_ADDRESS)!.values()]
        .map(({ name, version }) => `${name}@${version}`)
        .sort();
    expect(await whole()).toEqual(expected());
    put(store, ...many(200, 400, "2"));
    remove(store, "pod-0");
    expect(await whole()).toEqual(expected());
    expect(expected()).toHaveLength(399);
  });

  it("is told after a reconnect only what differs from the versions it declares", async () => {
    const store = newStore();
    put(store, resource("same", "1"), resource("changed", "2"), resource("new", "1"));
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS, {
      initialResourceVersions: {
        same: resource("same", "1").version,
        changed: resource("changed", "1").version,
        gone: "x",
      },
    });
    const response = await raw.response(0);
    expect(names(response)).toEqual(["changed", "new"]);
    expect(response.removedResources).toEqual(["gone"]);
  });

  it("has one response in flight and gets what changed meanwhile in one piece", async () => {
    const store = newStore();
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    const first = await raw.response(0);
    for (let i = 0; i < 100; i++) put(store, resource("a", `${i}`), resource(`pod-${i}`, "1"));
    for (let i = 0; i < 99; i++) remove(store, `pod-${i}`);
    expect(server.delta.sessions[0]?.types[TYPE_ADDRESS]).toMatchObject({ synced: "STALE" });
    raw.ack(first);
    const second = await nextResponse(raw, 1);
    expect(names(second)).toEqual(["a", "pod-99"]);
    expect(second.removedResources).toEqual([]);
    expect(raw.responses).toHaveLength(2);
    await server.observer.signal.until(() => server.observer.counts["converged"] === 2);
    expect(server.delta.sessions[0]?.types[TYPE_ADDRESS]).toMatchObject({
      synced: "SYNCED",
      resources: 2,
      subscribed: "*",
    });
  });

  it("keeps types apart: one waiting for its acknowledgement does not hold up the other", async () => {
    const store = newStore();
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    await raw.response(0);
    raw.open(TYPE_AUTHORIZATION);
    raw.ack(await raw.response(1));
    const upserts = [resource("ns/policy", "1")];
    store.apply({ typeUrl: TYPE_AUTHORIZATION, upserts, removed: [] });
    expect(names(await raw.response(2))).toEqual(["ns/policy"]);
  });

  it("gets workloads only after the policies that changed before them", async () => {
    const store = newStore();
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    raw.open(TYPE_AUTHORIZATION);
    raw.ack(await raw.response(0));
    raw.ack(await raw.response(1));
    await server.observer.signal.until(() => server.observer.counts["converged"] === 2);
    const upserts = [resource("ns/policy", "1")];
    store.apply({ typeUrl: TYPE_AUTHORIZATION, upserts, removed: [] });
    store.apply({
      typeUrl: TYPE_AUTHORIZATION,
      upserts: [resource("ns/second", "1")],
      removed: [],
    });
    put(store, resource("pod", "selected by ns/policy and ns/second"));
    const sent: string[][] = [];
    for (let index = 2; index < 5; index++) sent.push(names(await nextResponse(raw, index)));
    expect(sent).toEqual([["ns/policy"], ["ns/second"], ["pod"]]);
  });
});

describe("acknowledgements", () => {
  it("count a NACK with its reason, and go on with the next change", async () => {
    const store = newStore();
    put(store, resource("a", "1"));
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    const { typeUrl, nonce } = await raw.response(0);
    raw.send({ typeUrl, responseNonce: nonce, errorDetail: { message: "a: bad address" } });
    await server.observer.signal.until(() => server.observer.rejections.length === 1);
    expect(server.delta.sessions[0]?.types[TYPE_ADDRESS]).toMatchObject({
      synced: "NACK",
      nackReason: "a: bad address",
    });
    put(store, resource("a", "2"));
    expect(names(await nextResponse(raw, 1))).toEqual(["a"]);
    await server.observer.signal.until(() => server.observer.counts["converged"] === 2);
    expect(server.delta.sessions[0]?.types[TYPE_ADDRESS]?.synced).toBe("SYNCED");
  });

  it("are known change by change, of those that are connected", async () => {
    const store = newStore();
    let progress = 0;
    using server = await TestServer.start(store, { onProgress: () => void progress++ });
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    await nextResponse(raw, 0);
    const { delta } = server;
    const waiting = (epoch: number) => delta.acknowledgement("ztunnel", epoch).waiting;
    await server.observer.signal.until(() => waiting(0).length === 0);
    put(store, resource("a", "1"));
    const first = await raw.response(1);
    put(store, resource("b", "1"));
    const all = () => [0, 1, 2].map((epoch) => waiting(epoch).length);
    expect(all()).toEqual([0, 1, 1]);
    raw.ack(first);
    const second = await raw.response(2);
    expect(all()).toEqual([0, 0, 1]);
    const { typeUrl, nonce: responseNonce } = second;
    raw.send({ typeUrl, responseNonce, errorDetail: { message: "b: bad address" } });
    await server.observer.signal.until(() => server.observer.rejections.length === 1);
    expect(all()).toEqual([0, 0, 0]);
    const rejected = (epoch: number) => delta.acknowledgement("ztunnel", epoch).rejections.length;
    expect([rejected(2), rejected(3)]).toEqual([1, 0]);
    expect(delta.acknowledgement("waypoint", 0)).toMatchObject({ clients: 0, waiting: [] });
    expect(progress).toBe(3);
  });

  it("remember so many refusals of one client and no more", async () => {
    const store = newStore();
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    for (let i = 0; i <= REJECTIONS_KEPT; i++) {
      const { typeUrl, nonce: responseNonce } = await raw.response(i);
      raw.send({ typeUrl, responseNonce, errorDetail: { message: `refused ${i}` } });
      put(store, resource("a", `${i}`));
    }
    await raw.response(REJECTIONS_KEPT + 1);
    const { rejections } = server.delta.acknowledgement("ztunnel", 0);
    expect(rejections).toHaveLength(REJECTIONS_KEPT);
    expect(rejections[0]?.reason).toBe("refused 1");
  });

  it("ignore stale nonces", async () => {
    const store = newStore();
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    const first = await nextResponse(raw, 0);
    put(store, resource("a", "1"));
    const second = await raw.response(1);
    raw.ack(first);
    raw.send({ typeUrl: TYPE_ADDRESS, responseNonce: "never-sent" });
    await server.observer.signal.until(() => server.observer.counts["expiredNonce"] === 2);
    put(store, resource("b", "1"));
    expect(raw.responses).toHaveLength(2);
    raw.ack(second);
    expect(names(await raw.response(2))).toEqual(["b"]);
  });
});

describe("an on-demand client", () => {
  const nothing = { resourceNamesSubscribe: ["*"], resourceNamesUnsubscribe: ["*"] };
  const service = resource("ns/svc.ns", "svc", { aliases: ["net/10.0.0.9"] });
  const workload = resource("uid-1", "w", { aliases: ["net/10.1.0.1"], parents: ["ns/svc.ns"] });

  async function start(store: ResourceStore) {
    const server = await TestServer.start(store);
    const raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS, nothing);
    const first = await nextResponse(raw, 0);
    const ask = (...resourceNamesSubscribe: string[]) =>
      raw.send({ typeUrl: TYPE_ADDRESS, resourceNamesSubscribe });
    const close = () => (raw[Symbol.dispose](), server.kill());
    return { server, raw, first, ask, [Symbol.dispose]: close };
  }

  it("starts with nothing but the workloads of its own node", async () => {
    const store = newStore();
    put(store, service, resource("local", "1", { node: "node-a" }));
    put(store, resource("remote", "1", { node: "node-b" }));
    using client = await start(store);
    expect(names(client.first)).toEqual(["local"]);
    put(store, resource("local-2", "1", { node: "node-a" }));
    expect(names(await nextResponse(client.raw, 1))).toEqual(["local-2"]);
  });

  it.each([
    ["a workload's uid", "uid-1", ["uid-1"]],
    ["a workload's address", "net/10.1.0.1", ["uid-1"]],
    ["a service's name, which brings its workloads", "ns/svc.ns", ["ns/svc.ns", "uid-1"]],
    ["a service's address, which brings its workloads", "net/10.0.0.9", ["ns/svc.ns", "uid-1"]],
  ])("asks by %s", async (_what, key, expected) => {
    const store = newStore();
    put(store, service, workload);
    using client = await start(store);
    client.ask(key);
    expect(names(await nextResponse(client.raw, 1))).toEqual(expected);
  });

  it("is told that a name does not exist, and later that it does", async () => {
    const store = newStore();
    using client = await start(store);
    client.ask("net/10.1.0.1");
    expect((await nextResponse(client.raw, 1)).removedResources).toEqual(["net/10.1.0.1"]);
    put(store, resource("unrelated", "1"));
    put(store, workload);
    expect(names(await nextResponse(client.raw, 2))).toEqual(["uid-1"]);
    remove(store, "uid-1");
    expect((await nextResponse(client.raw, 3)).removedResources).toEqual(["uid-1"]);
  });

  it("follows the workloads of a service it asked for", async () => {
    const store = newStore();
    put(store, service);
    using client = await start(store);
    client.ask("ns/svc.ns");
    await nextResponse(client.raw, 1);
    put(store, workload);
    expect(names(await nextResponse(client.raw, 2))).toEqual(["uid-1"]);
    put(store, resource("uid-1", "moved elsewhere", { parents: [] }));
    expect(names(await nextResponse(client.raw, 3))).toEqual(["uid-1"]);
  });

  it("gets a resource again when it asks again, and no more when it unsubscribes", async () => {
    const store = newStore();
    put(store, service, workload);
    using client = await start(store);
    client.ask("uid-1");
    await nextResponse(client.raw, 1);
    client.ask("uid-1");
    expect(names(await nextResponse(client.raw, 2))).toEqual(["uid-1"]);
    client.raw.send({ typeUrl: TYPE_ADDRESS, resourceNamesUnsubscribe: ["uid-1"] });
    client.ask("ns/none");
    expect((await nextResponse(client.raw, 3)).removedResources).toEqual(["ns/none"]);
    put(store, resource("uid-1", "changed"));
    client.ask("ns/none-2");
    expect(names(await nextResponse(client.raw, 4))).toEqual([]);
  });

  it("resumes after a reconnect with the names it declares", async () => {
    const store = newStore();
    put(store, service, workload, resource("other", "1"));
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    const initialResourceVersions = {
      "uid-1": workload.version,
      "ns/svc.ns": "old",
      gone: "1",
      "net/10.5.5.5": "",
    };
    raw.open(TYPE_ADDRESS, { ...nothing, initialResourceVersions });
    const response = await nextResponse(raw, 0);
    expect(names(response)).toEqual(["ns/svc.ns"]);
    expect(response.removedResources).toEqual(["gone", "net/10.5.5.5"]);
    put(store, resource("uid-1", "changed"));
    expect(names(await nextResponse(raw, 1))).toEqual(["uid-1"]);
  });

  it("becomes a wildcard client by subscribing to *", async () => {
    const store = newStore();
    put(store, service, workload, resource("other", "1"));
    using client = await start(store);
    client.ask("uid-1");
    await nextResponse(client.raw, 1);
    client.ask("*");
    expect(names(await nextResponse(client.raw, 2))).toEqual(["ns/svc.ns", "other"]);
  });
});

describe("the server", () => {
  it("refuses a stream without a node id", async () => {
    using server = await TestServer.start(newStore());
    using raw = new RawStream(server.target);
    raw.send({ typeUrl: TYPE_ADDRESS });
    expect(await raw.ended).toContain("malformed node id");
  });

  it("refuses callers that authentication refuses, and nodes that are not the caller's", async () => {
    using server = await TestServer.start(newStore(), {
      authenticate: (metadata) => {
        if (metadata.get("authorization")[0] === "Bearer good") {
          return Promise.resolve(({ namespace }) => `not yours: ${namespace}`);
        }
        return Promise.reject(new RpcError(status.UNAUTHENTICATED, "bad token"));
      },
    });
    using stranger = new RawStream(server.target);
    stranger.open(TYPE_ADDRESS);
    expect(await stranger.ended).toBe("bad token");
    using impostor = new RawStream(server.target, { authorization: "Bearer good" });
    impostor.open(TYPE_ADDRESS);
    expect(await impostor.ended).toBe("not yours: istio-system");
    expect(server.delta.sessions).toEqual([]);
  });

  it("takes as many streams as the limit and refuses one more", async () => {
    using server = await TestServer.start(newStore(), { sessionsMax: 1 });
    using first = new RawStream(server.target);
    first.open(TYPE_ADDRESS);
    await first.response(0);
    using second = new RawStream(server.target);
    second.open(TYPE_ADDRESS);
    expect(await second.ended).toBe("too many connected proxies");
    expect(server.delta.sessions).toHaveLength(1);
  });

  it("ignores types it does not serve and serves the others of the stream", async () => {
    using server = await TestServer.start(newStore());
    using raw = new RawStream(server.target);
    raw.open("type.googleapis.com/envoy.config.cluster.v3.Cluster");
    raw.open(TYPE_ADDRESS);
    expect((await raw.response(0)).typeUrl).toBe(TYPE_ADDRESS);
  });

  it("ends streams cleanly at their maximal age", async () => {
    const clock = new FakeClock();
    using server = await TestServer.start(newStore(), { clock, random: () => 0 });
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    raw.ack(await raw.response(0));
    await server.observer.signal.until(() => server.observer.counts["converged"] === 1);
    await clock.advance(STREAM_AGE_MS_MAX * 0.9 - 1);
    expect(server.delta.sessions).toHaveLength(1);
    await clock.advance(1);
    expect(await raw.ended).toBe("OK");
    expect(clock.pendingTimers).toBe(0);
  });

  it.each([
    [0, 0.9],
    [0.5, 1],
    [0.999_999, 1.1],
  ])("spreads the ends of streams: random %d is %d of the age", async (random, share) => {
    const clock = new FakeClock();
    using server = await TestServer.start(newStore(), { clock, random: () => random });
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    raw.ack(await raw.response(0));
    await server.observer.signal.until(() => server.observer.counts["converged"] === 1);
    await clock.advance(STREAM_AGE_MS_MAX * share - 100);
    expect(server.delta.sessions).toHaveLength(1);
    await clock.advance(100);
    expect(await raw.ended).toBe("OK");
  });

  it("pushes to a few clients at a time, and to all of them in the end", async () => {
    const store = newStore();
    using server = await TestServer.start(store, { pushesPerTurn: 1 });
    using first = new RawStream(server.target);
    using second = new RawStream(server.target);
    using third = new RawStream(server.target);
    for (const raw of [first, second, third]) {
      raw.open(TYPE_ADDRESS);
      await nextResponse(raw, 0);
    }
    await server.observer.signal.until(() => server.observer.counts["converged"] === 3);
    const sent = () => server.observer.counts["responses"];
    put(store, resource("a", "1"));
    expect(sent()).toBe(4);
    for (const raw of [first, second, third]) expect(names(await raw.response(1))).toEqual(["a"]);
    expect(sent()).toBe(6);
  });

  it("sends all policies to clients that ask for one, and to those that ask for none", async () => {
    const store = newStore();
    const upserts = [resource("ns/a", "1"), resource("ns/b", "1")];
    store.apply({ typeUrl: TYPE_AUTHORIZATION, upserts, removed: [] });
    using server = await TestServer.start(store);
    using raw = new RawStream(server.target);
    raw.open(TYPE_AUTHORIZATION, {
      resourceNamesSubscribe: ["ns/a"],
      resourceNamesUnsubscribe: ["*"],
    });
    expect(names(await raw.response(0))).toEqual(["ns/a", "ns/b"]);
  });

  it("ends streams that say nothing", async () => {
    const clock = new FakeClock();
    const arrived = Promise.withResolvers<void>();
    using server = await TestServer.start(newStore(), {
      clock,
      authenticate: (metadata) => (arrived.resolve(), allowAnyone(metadata)),
    });
    using silent = new RawStream(server.target);
    await arrived.promise;
    using speaker = new RawStream(server.target);
    speaker.open(TYPE_ADDRESS);
    await speaker.response(0);
    await clock.advance(FIRST_REQUEST_TIMEOUT_MS);
    expect(await silent.ended).toBe("OK");
    expect(server.delta.sessions).toHaveLength(1);
  });

  it("ends streams that do not acknowledge", async () => {
    const clock = new FakeClock();
    using server = await TestServer.start(newStore(), { clock });
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    await raw.response(0);
    await clock.advance(ACKNOWLEDGE_TIMEOUT_MS - 1);
    expect(server.delta.sessions).toHaveLength(1);
    await clock.advance(1);
    expect(await raw.ended).toBe("no acknowledgement in time");
    expect(server.observer.counts["timedOut"]).toBe(1);
    expect(clock.pendingTimers).toBe(0);
  });

  it("holds back responses while too many bytes are unacknowledged", async () => {
    const store = newStore();
    put(store, resource("a", "x".repeat(SMALL_RESPONSE_BYTES)));
    using server = await TestServer.start(store, { unacknowledgedBytesMax: 24 * 1024 });
    using first = new RawStream(server.target);
    first.open(TYPE_ADDRESS);
    const response = await first.response(0);
    using second = new RawStream(server.target);
    second.open(TYPE_ADDRESS);
    await server.observer.signal.until(() => server.observer.counts["connected"] === 2);
    using leaver = new RawStream(server.target);
    leaver.open(TYPE_ADDRESS);
    await server.observer.signal.until(() => server.observer.counts["connected"] === 3);
    expect([second.responses.length, leaver.responses.length]).toEqual([0, 0]);
    // What is small goes out all the same.
    second.open(TYPE_AUTHORIZATION);
    expect((await second.response(0)).typeUrl).toBe(TYPE_AUTHORIZATION);
    first.ack(response);
    const waited = await second.response(1);
    expect(names(waited)).toEqual(["a"]);
    expect(leaver.responses).toHaveLength(0);
    second[Symbol.dispose]();
    expect(names(await leaver.response(0))).toEqual(["a"]);
  });

  it("ends every stream when it closes", async () => {
    using server = await TestServer.start(newStore());
    using raw = new RawStream(server.target);
    raw.open(TYPE_ADDRESS);
    await raw.response(0);
    server.delta.close();
    expect(await raw.ended).toBe("OK");
    await server.observer.signal.until(() => server.observer.counts["disconnected"] === 1);
  });

  it("says which port it cannot have", async () => {
    using server = await TestServer.start(newStore());
    await expect(TestServer.start(newStore(), { port: server.grpc.port })).rejects.toThrow(
      `cannot listen on 127.0.0.1:${server.grpc.port} (xds): it is in use`,
    );
  });
});
