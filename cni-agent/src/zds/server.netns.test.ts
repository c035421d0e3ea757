import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeZtunnel } from "../testing/fake-ztunnel.ts";
import type { ZdsPod } from "./messages.ts";
import { ZdsServer } from "./server.ts";
import { ANSWER_DEADLINE_MS } from "./session.ts";

let folder: string;
let path: string;
let netnsFd: number;
let pods: Map<string, ZdsPod>;
let clock: FakeClock;
let server: ZdsServer;
let events: string[];
let ztunnels: FakeZtunnel[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-zds-"));
  path = join(folder, "run", "ztunnel.sock");
  netnsFd = openSync("/proc/self/ns/net", "r");
  pods = new Map();
  clock = new FakeClock();
  events = [];
  ztunnels = [];
  server = new ZdsServer({
    path,
    directory: { pods: () => pods.values(), pod: (uid) => pods.get(uid) },
    clock,
    log: memoryLog().log.scope("zds"),
    onNewest: () => undefined,
    onSynced: () => events.push("synced"),
    onRejected: (uid) => events.push(`rejected ${uid}`),
  });
});

afterEach(() => {
  for (const ztunnel of ztunnels) ztunnel.close();
  server.close();
  closeSync(netnsFd);
  rmSync(folder, { recursive: true });
});

function addPod(uid: string, fd: number | undefined = netnsFd): void {
  pods.set(uid, { uid, name: `name-${uid}`, namespace: "ns", serviceAccount: "sa", netnsFd: fd });
}

function connect(options: { readonly hello?: Uint8Array | false } = {}): FakeZtunnel {
  const ztunnel = new FakeZtunnel(path, options);
  ztunnels.push(ztunnel);
  return ztunnel;
}

async function synced(): Promise<FakeZtunnel> {
  const ztunnel = connect();
  const before = events.length;
  await expect.poll(() => events.length).toBeGreaterThan(before);
  return ztunnel;
}

describe("ZDS server", () => {
  it("sends a new ztunnel every pod with its namespace, then the end of the snapshot", async () => {
    addPod("a");
    pods.set("b", { ...pods.get("a")!, uid: "b", netnsFd: undefined });
    const ztunnel = await synced();
    expect(ztunnel.log).toEqual(["add a", "keep b", "snapshot"]);
    expect(ztunnel.requests[0]!.netnsInode).toBe(fstatSync(netnsFd, { bigint: true }).ino);
    expect(ztunnel.requests[0]!.name).toBe("name-a");
    expect(ztunnel.requests[1]!.netnsInode).toBeUndefined();
  });

  it("sends one request at a time", async () => {
    addPod("a");
    addPod("b");
    const ztunnel = connect();
    ztunnel.answer = () => undefined;
    await ztunnel.saw("add a");
    expect(ztunnel.log).toEqual(["add a"]);
    ztunnel.acknowledge("");
    await ztunnel.saw("add b");
    expect(ztunnel.log).toEqual(["add a", "add b"]);
  });

  it("sends live additions to the newest ztunnel and removals to all", async () => {
    const old = await synced();
    const young = await synced();
    addPod("a");
    await server.add("a");
    pods.delete("a");
    await server.remove("a");
    expect(young.log).toEqual(["snapshot", "add a", "del a"]);
    expect(old.log).toEqual(["snapshot", "del a"]);
  });

  it("hands pods on to the older ztunnel when the newer one goes away", async () => {
    const old = await synced();
    const young = await synced();
    addPod("a");
    await server.add("a");
    young.close();
    await old.saw("add a");
    expect(server.connected).toBe(1);
  });

  it("says that there is no ztunnel, and removes all the same", async () => {
    addPod("a");
    await expect(server.add("a")).rejects.toMatchObject({ code: "ztunnel-absent" });
    await server.remove("a");
  });

  it("reports a refusal to whoever asked, and one in a snapshot to the reconciler", async () => {
    addPod("bad");
    const ztunnel = connect();
    ztunnel.answer = ({ uid }) => (uid === "" ? "" : "failure to start proxy");
    await expect.poll(() => events).toEqual(["rejected bad", "synced"]);
    await expect(server.add("bad")).rejects.toMatchObject({
      code: "ztunnel-rejected",
      message: "ztunnel refused: failure to start proxy",
    });
  });

  it("gives up on a ztunnel that does not acknowledge in time", async () => {
    const ztunnel = await synced();
    ztunnel.answer = () => undefined;
    addPod("a");
    const added = server.add("a");
    const failed = expect(added).rejects.toMatchObject({ code: "ztunnel-timed-out" });
    await ztunnel.saw("add a");
    await clock.advance(ANSWER_DEADLINE_MS - 1);
    expect(server.connected).toBe(1);
    await clock.advance(1);
    await failed;
    expect(server.connected).toBe(0);
  });

  it("drops a connection that never says hello", async () => {
    const silent = connect({ hello: false });
    await expect.poll(() => clock.pendingTimers).toBe(1);
    await clock.advance(ANSWER_DEADLINE_MS);
    await silent.until(() => silent.closedBecause !== undefined);
  });

  it("fails what was under way when ztunnel dies, and does not call it a refusal", async () => {
    addPod("a");
    const ztunnel = connect();
    ztunnel.answer = () => undefined;
    await ztunnel.saw("add a");
    addPod("b");
    const added = expect(server.add("b")).rejects.toMatchObject({ code: "ztunnel-left" });
    ztunnel.close();
    await added;
    expect(events).toEqual([]);
  });

  it("skips a pod that was removed while its turn had not come", async () => {
    addPod("a");
    addPod("b");
    const ztunnel = connect();
    ztunnel.answer = () => undefined;
    await ztunnel.saw("add a");
    pods.delete("b");
    ztunnel.answer = () => "";
    ztunnel.acknowledge("");
    await ztunnel.saw("snapshot");
    expect(ztunnel.log).toEqual(["add a", "snapshot"]);
  });

  it("never sends keep after the snapshot: it would end ztunnel", async () => {
    const ztunnel = await synced();
    pods.set("k", { uid: "k", name: "k", namespace: "n", serviceAccount: "s", netnsFd: undefined });
    await server.add("k");
    expect(ztunnel.log).toEqual(["snapshot"]);
  });

  it.each([
    ["a hello of another version", Buffer.from([8, 9])],
    ["bytes that are no message", Buffer.from([255, 255, 255])],
  ])("refuses %s", async (_name, hello) => {
    const ztunnel = connect({ hello });
    await ztunnel.until(() => ztunnel.closedBecause !== undefined);
    expect(server.connected).toBe(0);
  });

  it("drops a ztunnel that answers without being asked, or sends a descriptor", async () => {
    const unasked = await synced();
    unasked.acknowledge("");
    await unasked.until(() => unasked.closedBecause !== undefined);
    const generous = await synced();
    generous.sendRaw(Buffer.from([10, 0]), netnsFd);
    await generous.until(() => generous.closedBecause !== undefined);
  });

  it("serves a ztunnel that comes back the whole snapshot again", async () => {
    addPod("a");
    const first = await synced();
    first.close();
    await expect.poll(() => server.connected).toBe(0);
    addPod("b");
    expect((await synced()).log).toEqual(["add a", "add b", "snapshot"]);
  });

  it("listens for root only and leaves no file behind", () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
    server.close();
    expect(() => statSync(path)).toThrow("ENOENT");
  });
});
