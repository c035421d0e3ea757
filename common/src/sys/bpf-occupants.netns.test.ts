import { afterEach, beforeEach, expect, it } from "vitest";
import { MAPS, STRUCTS } from "./bpf-layout.gen.ts";
import { BpfMap } from "./bpf-map.ts";
import { type LoadedObject, loadObject } from "./bpf-object.ts";
import { Occupants } from "./bpf-occupants.ts";

const { netns, flows, link } = STRUCTS.occupant;
const SLOT = 3;
const POD = 77n;

let object: LoadedObject;
let occupants: Occupants;
beforeEach(() => {
  object = loadObject({ programs: ["steer"] });
  const map = new BpfMap("occupants", object.maps.get("occupants")!, MAPS.occupants);
  occupants = new Occupants(map);
  occupants.update(SLOT, (value) => {
    value.writeBigUInt64LE(POD, netns);
    value.writeInt32LE(5, flows);
  });
});
afterEach(() => {
  occupants[Symbol.dispose]();
  object[Symbol.dispose]();
});

it("is what was written, slot by slot", () => {
  expect(occupants.get(SLOT).readBigUInt64LE(netns)).toBe(POD);
  expect(occupants.get(SLOT).readInt32LE(flows)).toBe(5);
  for (const other of [SLOT - 1, SLOT + 1]) {
    expect(occupants.get(other)).toEqual(Buffer.alloc(STRUCTS.occupant.bytes));
  }
});

it("keeps what is counted while something else of it is changed", () => {
  occupants.update(SLOT, (value) => {
    value.writeUInt32LE(12, link);
    occupants.giveFlowBack(SLOT, POD);
  });
  expect(occupants.get(SLOT).readUInt32LE(link)).toBe(12);
  expect(occupants.get(SLOT).readInt32LE(flows)).toBe(4);
});

it("takes connections back for the pod that has the slot only", () => {
  occupants.giveFlowBack(SLOT, POD + 1n);
  expect(occupants.get(SLOT).readInt32LE(flows)).toBe(5);
});
