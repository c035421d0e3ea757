import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WorkloadSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import { workloadFromProto } from "./from-proto.ts";
import { INTERNED_MAX, Interner } from "./interner.ts";
import type { Workload } from "./workload.ts";

/** Few words, so that values recur, and such as a careless key would confuse. */
const word = fc.constantFrom("", "a", "b", "a,b", '"', '","', "\n", ";", "80,80");
const serviceKey = fc.tuple(word, word).map(([namespace, host]) => `${namespace}/${host}`);
const port = fc.record({
  servicePort: fc.constantFrom(8, 80, 8080),
  targetPort: fc.constantFrom(8, 80, 8080),
});
const services = fc.dictionary(serviceKey, fc.record({ ports: fc.array(port, { maxLength: 3 }) }), {
  maxKeys: 3,
});
const wireWorkload = fc.record({
  locality: fc.record({ region: word, zone: word, subzone: word }),
  authorizationPolicies: fc.array(word, { maxLength: 3 }),
  services,
});

const convert = (wire: MessageInitShape<typeof WorkloadSchema>): Workload =>
  workloadFromProto(create(WorkloadSchema, wire));

describe("what workloads share", () => {
  it("is what each of them was sent, whichever came before", () => {
    fc.assert(
      fc.property(fc.array(wireWorkload, { minLength: 1, maxLength: 20 }), (wires) => {
        for (const wire of wires) {
          const workload = convert(wire);
          expect(workload.locality).toEqual(wire.locality);
          expect(workload.authorizationPolicies).toEqual(wire.authorizationPolicies);
          expect([...workload.services]).toEqual(
            Object.entries(wire.services).map(([key, { ports }]) => [
              key,
              new Map(ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])),
            ]),
          );
        }
      }),
    );
  });

  it("is there once: places, services and policies", () => {
    const wire = {
      locality: { region: "r", zone: "z" },
      authorizationPolicies: ["ns/p"],
      services: { "ns/web": { ports: [{ servicePort: 80, targetPort: 8080 }] } },
    };
    const [a, b] = [convert(wire), convert(wire)];
    expect(a.locality).toBe(b.locality);
    expect(a.authorizationPolicies).toBe(b.authorizationPolicies);
    expect(a.services).toBe(b.services);
  });

  it("is bounded: when full it is forgotten, and made again", () => {
    const interner = new Interner<object>();
    const first = interner.get("0", () => ({}));
    for (let i = 1; i < INTERNED_MAX; i++) interner.get(String(i), () => ({}));
    expect(interner.get("0", () => ({}))).toBe(first);
    interner.get("one more", () => ({}));
    expect(interner.get("0", () => ({}))).not.toBe(first);
  });
});
