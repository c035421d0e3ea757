import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ZdsHelloSchema } from "@ambit/api/gen/istio/zds_pb.ts";
import { PACKET_BYTES_MAX } from "@ambit/common/sys/seqpacket.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { Signal } from "@ambit/common/testing/signal.ts";
import { add, del, encode, FakeAgent, keep, SNAPSHOT } from "../testing/fake-agent.ts";
import { FakeWorkers } from "../testing/fake-workers.ts";
import { PodRegistry } from "./pod-registry.ts";
import { NodeSteering } from "./steering.ts";
import { ZdsClient } from "./zds-client.ts";

let folder: string;
let path: string;
let agent: FakeAgent;
let client: ZdsClient;
let workers: FakeWorkers;
let pods: PodRegistry;
let clock: FakeClock;
let synced: boolean[];
let changes: Signal;
let pending: number;
let protocolErrors: number;
let netnsFd: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-zds-"));
  path = join(folder, "zds.sock");
  netnsFd = openSync("/proc/self/ns/net", "r");
  clock = new FakeClock();
  workers = new FakeWorkers();
  synced = [];
  changes = new Signal();
  pending = 0;
  protocolErrors = 0;
  const log = memoryLog().log.scope("inpod");
  const config = { bpfFs: folder, nodeName: "node-1", workerThreads: 1, ipv6: true };
  pods = new PodRegistry({
    workers,
    clock,
    log,
    steering: new NodeSteering({ config, workers, clock, log }),
    onPending: (count) => (pending = count),
  });
});

afterEach(() => {
  client.close();
  agent.close();
  closeSync(netnsFd);
  rmSync(folder, { recursive: true, force: true });
});

function startClient(): void {
  client = new ZdsClient({
    path,
    pods,
    clock,
    log: memoryLog().log.scope("inpod"),
    onSynced: (value) => {
      synced.push(value);
      changes.changed();
    },
    onProtocolError: () => protocolErrors++,
  });
}

async function start(): Promise<void> {
  agent = new FakeAgent(path);
  startClient();
  await agent.connected();
}

/** The agent goes away and comes back; waits for the second hello. */
async function reconnect(): Promise<void> {
  const before = agent.connections;
  agent.socket!.close();
  await changes.until(() => synced.at(-1) === false);
  await clock.advance(20);
  await agent.connected(before + 1);
}

describe("the handshake", () => {
  it("begins with a bare hello of version 1", async () => {
    await start();
    expect(fromBinary(ZdsHelloSchema, agent.hellos[0]!).version).toBe(1);
  });

  it("is tried again after 20 ms, doubling up to half a second", async () => {
    const noAgent = join(folder, "nobody");
    const delays: number[] = [];
    const counting = {
      nowMs: () => clock.nowMs(),
      monotonicMs: () => clock.monotonicMs(),
      after: (delayMs: number, fire: () => void) => (
        delays.push(delayMs),
        clock.after(delayMs, fire)
      ),
    };
    agent = new FakeAgent(path);
    client = new ZdsClient({
      path: noAgent,
      pods,
      clock: counting,
      log: memoryLog().log.scope("inpod"),
      onSynced: () => undefined,
      onProtocolError: () => undefined,
    });
    await clock.advance(60_000);
    expect(delays.slice(0, 4)).toEqual([20, 40, 80, 160]);
    expect(delays.slice(-2)).toEqual([500, 500]);
  });
});

describe("pods of the snapshot", () => {
  it("are served when acknowledged, with the descriptor's namespace", async () => {
    await start();
    expect(await agent.send(add("a"), netnsFd)).toBe("");
    const { ask } = workers.asked("addPod")[0]!;
    expect(ask.info).toEqual({ name: "pod-a", namespace: "ns", serviceAccount: "sa" });
    expect(fstatSync(ask.netnsFd!).ino).toBe(fstatSync(netnsFd).ino);
    expect(ask.netnsFd).not.toBe(netnsFd);
    expect(synced).toEqual([]);
    expect(await agent.send(SNAPSHOT)).toBe("");
    expect(synced).toEqual([true]);
  });

  it("are not added twice for the same namespace", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    const open = readdirSync("/proc/self/fd").length;
    expect(await agent.send(add("a"), netnsFd)).toBe("");
    expect(readdirSync("/proc/self/fd")).toHaveLength(open);
    expect(workers.names).toEqual(["addPod"]);
  });

  it("are replaced when the same uid comes with another namespace", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    const other = openSync("/proc/self/ns/uts", "r");
    expect(await agent.send(add("a"), other)).toBe("");
    closeSync(other);
    expect(workers.names).toEqual(["addPod", "removePod", "addPod"]);
  });

  it("survive a new connection whose snapshot keeps them", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    await agent.send(SNAPSHOT);
    await reconnect();
    expect(synced).toEqual([true, false]);
    expect(await agent.send(keep("a"))).toBe("");
    expect(await agent.send(SNAPSHOT)).toBe("");
    expect(workers.names).toEqual(["addPod"]);
    expect(synced).toEqual([true, false, true]);
  });

  it("are removed when a new snapshot does not list them", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    await agent.send(add("b"), netnsFd);
    await agent.send(SNAPSHOT);
    await reconnect();
    await agent.send(add("b"), netnsFd);
    expect(await agent.send(SNAPSHOT)).toBe("");
    expect(workers.asked("removePod").map(({ ask }) => ask.uid)).toEqual(["a"]);
    expect(pods.counts).toMatchObject({ active: 1, started: 2, stopped: 1 });
  });

  it("run on until its end when they are deleted during it", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    expect(await agent.send(del("a"))).toBe("");
    expect(workers.asked("removePod")).toHaveLength(0);
    await agent.send(SNAPSHOT);
    expect(workers.asked("removePod")).toHaveLength(1);
  });

  it("come back when deleted and added again during it", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    await agent.send(del("a"));
    await agent.send(add("a"), netnsFd);
    await agent.send(SNAPSHOT);
    expect(workers.asked("removePod")).toHaveLength(0);
    expect(pods.counts.active).toBe(1);
  });
});

describe("after the snapshot", () => {
  it("a deleted pod is cut at once, and an unknown one is no error", async () => {
    await start();
    await agent.send(SNAPSHOT);
    await agent.send(add("a"), netnsFd);
    expect(await agent.send(del("a"))).toBe("");
    expect(await agent.send(del("never seen"))).toBe("");
    expect(workers.names).toEqual(["addPod", "removePod"]);
  });

  it("descriptors are closed once nobody needs them", async () => {
    await start();
    await agent.send(SNAPSHOT);
    const open = readdirSync("/proc/self/fd").length;
    await agent.send(add("a"), netnsFd);
    await agent.send(del("a"));
    expect(readdirSync("/proc/self/fd")).toHaveLength(open);
  });
});

describe("a pod whose listeners cannot be bound", () => {
  beforeEach(() => {
    workers.answers.addPod = () => Promise.reject(new Error("port 15001 is in use"));
  });

  it("is refused with the reason and keeps readiness back until a retry succeeds", async () => {
    await start();
    expect(await agent.send(add("a"), netnsFd)).toBe(
      "failure to start proxy for ns/pod-a: port 15001 is in use",
    );
    expect(await agent.send(SNAPSHOT)).toBe("");
    expect(pending).toBe(1);
    delete workers.answers.addPod;
    await clock.advance(4_999);
    expect(pending).toBe(1);
    await clock.advance(1);
    expect(pending).toBe(0);
    expect(pods.counts).toMatchObject({ active: 1, pending: 0, started: 1 });
  });

  it("is served when the agent adds it again", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    delete workers.answers.addPod;
    expect(await agent.send(add("a"), netnsFd)).toBe("");
    expect(pending).toBe(0);
  });

  it("is served in another namespace when added again with that", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    delete workers.answers.addPod;
    const other = openSync("/proc/self/ns/uts", "r");
    const { ino } = fstatSync(other);
    expect(await agent.send(add("a"), other)).toBe("");
    closeSync(other);
    expect(fstatSync(workers.asked("addPod").at(-1)!.ask.netnsFd!).ino).toBe(ino);
  });

  it("is forgotten when deleted, also during the snapshot, and not tried again", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    expect(await agent.send(del("a"))).toBe("");
    expect(pending).toBe(0);
    await clock.advance(60_000);
    expect(workers.asked("addPod")).toHaveLength(1);
    expect(pods.counts.stopped).toBe(0);
  });

  it("is not tried again after the agent reconnected", async () => {
    await start();
    await agent.send(add("a"), netnsFd);
    await reconnect();
    await agent.send(SNAPSHOT);
    await clock.advance(60_000);
    expect(workers.asked("addPod")).toHaveLength(1);
    expect(pending).toBe(0);
  });

  it("has its reason cut to what a packet holds", async () => {
    workers.answers.addPod = () => Promise.reject(new Error("é".repeat(PACKET_BYTES_MAX)));
    await start();
    expect(await agent.send(add("a"), netnsFd)).toMatch(/^failure to start proxy.*…$/);
  });
});

/** What the agent must never say: refused, and then the process ends. */
describe("a broken protocol", () => {
  it.each([
    ["keep after the snapshot", keep("a")],
    ["a second snapshot", SNAPSHOT],
  ])("%s ends the process", async (_, payload) => {
    await start();
    await agent.send(SNAPSHOT);
    expect(await agent.send(payload)).not.toBe("");
    expect(protocolErrors).toBe(1);
  });

  it("an add without workload info ends the process", async () => {
    await start();
    expect(await agent.send({ case: "add", value: { uid: "a" } }, netnsFd)).toContain(
      "workload info",
    );
    expect(protocolErrors).toBe(1);
  });
});

describe("a packet that makes no sense", () => {
  const undecodable = Buffer.from([0xff, 0xff, 0xff]);
  const cases: readonly [string, Uint8Array, boolean, RegExp][] = [
    ["an add without descriptor", encode(add("a")), false, /0 descriptors/],
    ["a delete with one", encode(del("a")), true, /1 descriptors/],
    ["a snapshot end with one", encode(SNAPSHOT), true, /1 descriptors/],
    ["undecodable bytes", undecodable, false, /undecodable/],
    ["an unknown request", new Uint8Array([0x7a, 0]), false, /empty request/],
  ];

  it.each(cases)("%s is refused and the connection made anew", async (_, bytes, withFd, reason) => {
    await start();
    const open = readdirSync("/proc/self/fd").length;
    expect(await agent.sendBytes(bytes, withFd ? netnsFd : undefined)).toMatch(reason);
    await agent.closed();
    expect(synced).toEqual([false]);
    await clock.advance(20);
    await agent.connected(2);
    expect(protocolErrors).toBe(0);
    expect(readdirSync("/proc/self/fd").length).toBeLessThanOrEqual(open);
  });

  it("longer than a packet may be ends the connection only", async () => {
    await start();
    agent.socket!.send(Buffer.alloc(PACKET_BYTES_MAX + 1));
    await agent.closed();
    await clock.advance(20);
    await agent.connected(2);
    expect(protocolErrors).toBe(0);
  });
});

describe("closing", () => {
  it("stops reading at once and does not connect again", async () => {
    await start();
    client.close();
    await agent.closed();
    await clock.advance(60_000);
    expect(agent.connections).toBe(1);
    expect(synced).toEqual([]);
  });
});
