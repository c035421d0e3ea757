import { describe, expect, it } from "vitest";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText, type ResourceWriter } from "@ambit/common/resources/source.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { objectYaml, parse } from "../testing/mesh-harness.ts";
import type { ObjectStatus } from "./object-status.ts";
import { StatusWriter } from "./status-writer.ts";

const policies = ["a", "b"].map(
  (name) => parse(objectYaml("AuthorizationPolicy", name, "{ rules: [{}] }"))[0]!,
);

/** A writer that keeps objects in memory and notes each write. */
class Memory implements ResourceWriter {
  readonly objects = new Map<string, Resource>(policies.map((it) => [keyText(keyOf(it)), it]));
  readonly writes: string[] = [];
  failures = 0;

  patch: ResourceWriter["patch"] = (key, change) => {
    if (this.failures-- > 0) return Promise.reject(new Error("no room"));
    const before = this.objects.get(keyText(key));
    if (before === undefined) return Promise.resolve(false);
    const after = change(before);
    if (after !== before) this.writes.push(key.name);
    this.objects.set(keyText(key), after);
    return Promise.resolve(true);
  };
}

function status(name: string, message: string): ObjectStatus {
  return {
    key: { kind: "AuthorizationPolicy", namespace: "shop", name },
    conditions: [{ type: "ZtunnelAccepted", status: "True", reason: "Accepted", message }],
  };
}

function setUp() {
  const memory = new Memory();
  const clock = new FakeClock();
  const { log, lines } = memoryLog("info");
  const writer = new StatusWriter({ writer: memory, clock, log: log.scope("status") });
  return { memory, writer, lines, clock, written: () => clock.advance(0) };
}

describe("statuses", () => {
  it("are each written once, however often they are said", async () => {
    const { memory, writer, written } = setUp();
    writer.update([status("a", "1"), status("b", "1")]);
    writer.update([status("a", "1")]);
    await written();
    writer.update([status("a", "1")]);
    await written();
    expect(memory.writes).toEqual(["a", "b"]);
  });

  it("that change while others are written are written as they are then", async () => {
    const { memory, writer, written } = setUp();
    writer.update([status("a", "1"), status("b", "1")]);
    writer.update([status("b", "2")]);
    await written();
    expect(memory.writes).toEqual(["a", "b"]);
    expect(memory.objects.get("AuthorizationPolicy/shop/b")).toMatchObject({
      status: { conditions: [{ message: "2" }] },
    });
  });

  it("of objects that went are forgotten", async () => {
    const { memory, writer, written } = setUp();
    writer.update([status("a", "1"), status("b", "1")]);
    writer.forget(status("b", "").key);
    await written();
    expect(memory.writes).toEqual(["a"]);
    expect(writer.wanted).toEqual([status("a", "1")]);
  });

  it("are completed by what becomes known later, of the same version", async () => {
    const { memory, writer, written } = setUp();
    const enforcement = { kind: "proxies", where: "here" } as const;
    const of = (generation: number) => ({ ...status("a", "1"), generation, enforcement });
    const applied = {
      type: "ambit.io/Applied",
      status: "True",
      reason: "Acknowledged",
      message: "",
    } as const;
    const { key } = of(1);
    writer.decide(key, applied);
    expect(writer.wanted).toEqual([]);
    writer.update([of(1)]);
    await written();
    writer.decide(key, applied);
    writer.decide(key, { ...applied });
    await written();
    expect(memory.writes).toEqual(["a", "a"]);
    const types = () => writer.wanted.flatMap(({ conditions }) => conditions.map((it) => it.type));
    expect(types()).toEqual(["ZtunnelAccepted", "ambit.io/Applied"]);
    writer.update([of(2)]);
    expect(types()).toEqual(["ZtunnelAccepted"]);
    writer.decide(key, applied);
    writer.forget(key);
    expect(types()).toEqual([]);
  });

  it("that cannot be written are reported once, and tried again until they are", async () => {
    const { memory, writer, lines, clock, written } = setUp();
    memory.failures = 2;
    writer.update([status("a", "1")]);
    await written();
    await clock.advance(5_000);
    expect([lines.filter((line) => line.includes("no room")).length, memory.writes]).toEqual([
      1,
      [],
    ]);
    await clock.advance(5_000);
    expect(memory.writes).toEqual(["a"]);
    expect(clock.pendingTimers).toBe(0);
  });

  it("are not tried again when the object went, nor after the end", async () => {
    const { memory, writer, clock, written } = setUp();
    memory.failures = 2;
    writer.update([status("a", "1"), status("b", "1")]);
    await written();
    writer.forget(status("a", "").key);
    await clock.advance(5_000);
    expect(memory.writes).toEqual(["b"]);
    memory.failures = 1;
    writer.update([status("b", "2")]);
    await written();
    writer.close();
    await clock.advance(60_000);
    expect(memory.writes).toEqual(["b"]);
  });

  it("are known even where nobody can write them", async () => {
    const { log } = memoryLog("info");
    const clock = new FakeClock();
    const writer = new StatusWriter({ writer: undefined, clock, log: log.scope("status") });
    writer.update([status("a", "1")]);
    await clock.advance(0);
    expect(writer.wanted).toHaveLength(1);
  });
});
