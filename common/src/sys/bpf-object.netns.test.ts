import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MAPS, STRUCTS } from "./bpf-layout.gen.ts";
import { BpfMap } from "./bpf-map.ts";
import { type LoadedObject, loadObject, type ProgramName } from "./bpf-object.ts";
import type { SystemError } from "./libc.ts";

const PROGRAMS: readonly ProgramName[] = ["connect4", "connect6", "node_sockops", "proxy_sockops"];

let object: LoadedObject;

beforeAll(() => {
  object = loadObject({ programs: PROGRAMS });
});
afterAll(() => object[Symbol.dispose]());

const openMap = (name: keyof typeof MAPS) => new BpfMap(name, object.maps.get(name)!, MAPS[name]);

function number(value: number, bytes: 4 | 8): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUInt32LE(value);
  return buffer;
}

describe("the BPF object", () => {
  it("passes the verifier, and loads only the programs that were asked for", () => {
    expect([...object.programs.keys()]).toEqual(PROGRAMS);
  });

  it("serves each pod by a program of its own over the same maps", () => {
    for (const slot of [1, 2]) {
      using steer = loadObject({ programs: ["steer"], maps: object.maps, slot });
      expect(steer.programs.size).toBe(1);
    }
  });
});

describe("a map", () => {
  it("keeps elements until they are deleted", () => {
    const pods = openMap("pods");
    expect(pods.get(number(7, 8))).toBeUndefined();
    pods.set(number(7, 8), number(1, 4));
    pods.set(number(7, 8), number(2, 4));
    expect(pods.get(number(7, 8))).toEqual(number(2, 4));
    expect(pods.delete(number(7, 8))).toBe(true);
    expect(pods.delete(number(7, 8))).toBe(false);
  });

  it("lists its keys, and no more than asked for", () => {
    const pods = openMap("pods");
    for (let key = 1; key <= 5; key++) pods.set(number(key, 8), number(key, 4));
    const keys = pods.keys(100).map((key) => key.readUInt32LE());
    expect(keys.sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5]);
    expect(pods.keys(3)).toHaveLength(3);
    for (const key of pods.keys(100)) pods.delete(key);
    expect(pods.keys(100)).toEqual([]);
  });

  it("gives all its elements, however many calls that takes", () => {
    const flows = openMap("flows");
    expect(flows.entries(10)).toEqual([]);
    const key = Buffer.alloc(MAPS.flows.keyBytes);
    const value = Buffer.alloc(MAPS.flows.valueBytes);
    for (let i = 1; i <= 3000; i++) {
      key.writeUInt32LE(i);
      value.writeUInt32LE(i * 2);
      flows.set(key, value);
    }
    const entries = flows.entries(10_000);
    expect(new Set(entries.map(([found]) => found.readUInt32LE())).size).toBe(3000);
    expect(entries.every(([k, v]) => v.readUInt32LE() === 2 * k.readUInt32LE())).toBe(true);
    expect(flows.entries(7)).toHaveLength(7);
    for (const [found] of entries) flows.delete(found);
  });

  it("is full at its limit and says so", () => {
    const proxies = openMap("proxies");
    const { entriesMax } = MAPS.proxies;
    for (let key = 1; key <= entriesMax; key++) proxies.set(number(key, 8), number(0, 4));
    const oneMore = () => proxies.set(number(entriesMax + 1, 8), number(0, 4));
    expect(oneMore).toThrow(expect.objectContaining({ code: "E2BIG" }) as SystemError);
    for (const key of proxies.keys(100)) proxies.delete(key);
  });

  it("has keys as large as the structure that the programs use", () => {
    expect(MAPS.addresses.keyBytes).toBe(STRUCTS.podAddress.bytes);
    expect(MAPS.passes.keyBytes).toBe(STRUCTS.passKey.bytes);
    expect(MAPS.slots.valueBytes).toBe(STRUCTS.slot.bytes);
  });
});
