import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ServiceEntry } from "@ambit/api/resources/kinds.ts";
import { parseCidr } from "@ambit/common/net/cidr.ts";
import { keyOf, type ResourceEvent } from "@ambit/common/resources/source.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { objectYaml, parse, podYaml } from "../testing/mesh-harness.ts";
import { VipAllocator } from "./vip-allocator.ts";
import { VipPool } from "./vip-pool.ts";

function setUp(...blocks: string[]) {
  const usual = ["240.240.0.0/16", "2001:2::/48"];
  const pools = (blocks.length > 0 ? blocks : usual).map((block) => new VipPool(parseCidr(block)!));
  const { log, lines } = memoryLog("info");
  return { vips: new VipAllocator(pools, log.scope("vips")), lines };
}

interface Given {
  readonly name?: string;
  readonly hosts?: string;
  readonly spec?: string;
  /** Day of a month; smaller is older. */
  readonly day?: number;
  readonly labels?: string;
  readonly held?: readonly (readonly [value: string, host: string])[];
}

function entry({ name = "e", hosts = "h.test", spec = "", day = 5, labels = "", held }: Given) {
  const metadata = `namespace: shop, creationTimestamp: "2026-01-0${day}", labels: { ${labels} }`;
  const text = `{ hosts: [${hosts}], resolution: DNS, ${spec} }`;
  const [resource] = parse(objectYaml("ServiceEntry", name, text, metadata));
  const addresses = held?.map(([value, host]) => ({ value, host }));
  return { ...resource, ...(addresses && { status: { addresses } }) } as ServiceEntry;
}

const upsert = (given: Given): ResourceEvent => ({ type: "upsert", resource: entry(given) });
const remove = (name = "e"): ResourceEvent => ({ type: "delete", key: keyOf(entry({ name })) });

/** What each entry of the events was given, as "host address" texts. */
function given(events: readonly ResourceEvent[]): Record<string, string[]> {
  return Object.fromEntries(
    events.flatMap((event) =>
      event.type === "upsert" && event.resource.kind === "ServiceEntry"
        ? [
            [
              event.resource.metadata.name,
              (event.resource.status?.addresses ?? []).map((it) => `${it.host} ${it.value}`),
            ],
          ]
        : [],
    ),
  );
}

describe("virtual addresses", () => {
  it("are one of each family for each host", () => {
    const { e } = given(setUp().vips.apply([upsert({ hosts: "h.test, i.test" })]));
    expect(e).toEqual([
      expect.stringMatching(/^h\.test 240\.240\.\d+\.\d+$/),
      expect.stringMatching(/^h\.test 2001:2::[0-9a-f]+$/),
      expect.stringMatching(/^i\.test 240\.240\.\d+\.\d+$/),
      expect.stringMatching(/^i\.test 2001:2::[0-9a-f]+$/),
    ]);
  });

  it.each<[string, Given]>([
    ["addresses of its own", { spec: "addresses: [1.2.3.4]" }],
    ["no resolution", { spec: "resolution: NONE" }],
    ["opted out", { labels: 'networking.istio.io/enable-autoallocate-ip: "false"' }],
    ["a wildcard that is not resolved as asked for", { hosts: "'*.test'" }],
  ])("are not for an entry with %s, which loses those it had", (_, changed) => {
    const { vips } = setUp();
    const resolution = changed.spec?.includes("resolution") ? { hosts: "h.test" } : {};
    const one = entry({ ...changed, ...resolution, spec: "" });
    vips.apply([{ type: "upsert", resource: one }]);
    const again = parse(
      objectYaml(
        "ServiceEntry",
        "e",
        `{ hosts: [${changed.hosts ?? "h.test"}], ${changed.spec ?? "resolution: DNS"} }`,
        `namespace: shop, labels: { ${changed.labels ?? ""} }`,
      ),
    )[0]!;
    const event = {
      type: "upsert",
      resource: { ...again, status: { addresses: [{ value: "240.240.0.9", host: "h.test" }] } },
    };
    expect(given(vips.apply([event as ResourceEvent]))).toEqual({ e: [] });
  });

  it("are for a wildcard host that is resolved as asked for", () => {
    const { vips } = setUp("240.240.0.0/16");
    const events = vips.apply([
      {
        type: "upsert",
        resource: parse(
          objectYaml("ServiceEntry", "e", "{ hosts: ['*.test'], resolution: DYNAMIC_DNS }"),
        )[0]!,
      },
    ]);
    expect(given(events)["e"]).toHaveLength(1);
  });

  it("stay what the status says, after a restart too", () => {
    const held = [
      ["240.240.7.7", "h.test"],
      ["2001:2::77", "h.test"],
    ] as const;
    const { vips } = setUp();
    const expected = { e: held.map(([value, host]) => `${host} ${value}`) };
    expect(given(vips.apply([upsert({ held })]))).toEqual(expected);
    expect(given(vips.apply([upsert({ held, spec: "exportTo: ['*']" })]))).toEqual(expected);
  });

  it("are chosen anew when the status names an address that is not ours to give", () => {
    const { vips } = setUp("240.240.0.0/16");
    const { e } = given(vips.apply([upsert({ held: [["10.0.0.1", "h.test"]] })]));
    expect(e).toEqual([expect.stringMatching(/^h\.test 240\.240\./)]);
  });

  it("belong to the oldest entry that claims them; the other gets others", () => {
    const held = [["240.240.7.7", "h.test"]] as const;
    const young = upsert({ name: "young", day: 6, held });
    const old = upsert({ name: "old", day: 2, held });
    for (const batches of [[[young, old]], [[old], [young]], [[young], [old]]]) {
      const { vips } = setUp("240.240.0.0/16");
      const all = Object.assign({}, ...batches.map((batch) => given(vips.apply(batch)))) as Record<
        string,
        string[]
      >;
      expect(all["old"]).toEqual(["h.test 240.240.7.7"]);
      expect(all["young"]).toEqual([expect.stringMatching(/^h\.test 240\.240\.(?!7\.7$)/)]);
    }
  });

  it("give way to an author who wants the address, and come back when they no longer do", () => {
    const { vips } = setUp("10.0.0.0/30");
    vips.apply([upsert({ name: "auto", held: [["10.0.0.1", "h.test"]] })]);
    const user = upsert({ name: "user", hosts: "u.test", spec: "addresses: [10.0.0.1]" });
    expect(given(vips.apply([user]))).toEqual({ auto: ["h.test 10.0.0.2"], user: [] });
    vips.apply([remove("user")]);
    expect(given(vips.apply([upsert({ name: "next", hosts: "n.test" })]))).toEqual({
      next: ["n.test 10.0.0.1"],
    });
  });

  it("end when the block is used up, which the log says; a deleted entry's are free again", () => {
    const { vips, lines } = setUp("10.0.0.0/30");
    const events = vips.apply([upsert({ hosts: "a.test, b.test, c.test" })]);
    expect(given(events)["e"]).toHaveLength(2);
    expect(lines.join()).toContain("no virtual address is left for a host");
    vips.apply([remove()]);
    expect(given(vips.apply([upsert({ name: "f" })]))["f"]).toHaveLength(1);
  });

  it("are of no concern to other kinds", () => {
    const events: ResourceEvent[] = [{ type: "upsert", resource: parse(podYaml("a"))[0]! }];
    expect(setUp().vips.apply(events)).toBe(events);
  });

  const step = fc.record({
    name: fc.constantFrom("a", "b", "c", "d"),
    hosts: fc.constantFrom("h.test", "h.test, i.test"),
    day: fc.integer({ min: 1, max: 9 }),
    spec: fc.constantFrom("", "", "addresses: [10.0.0.1]", "addresses: [10.0.0.2]"),
    keeps: fc.boolean(),
    remove: fc.boolean(),
  });

  it("are never given twice, whatever happens", () => {
    fc.assert(
      fc.property(fc.array(fc.array(step, { maxLength: 3 }), { maxLength: 12 }), (batches) => {
        const { vips } = setUp("10.0.0.0/28");
        const holds = new Map<string, ServiceEntry>();
        for (const batch of batches) {
          const events = batch.map(({ remove: gone, keeps, ...of }) => {
            if (gone) return remove(of.name);
            return upsert({ ...of, ...(keeps && { held: [["10.0.0.3", "h.test"] as const] }) });
          });
          for (const event of vips.apply(events)) {
            if (event.type === "delete") holds.delete(event.key.name);
            else holds.set(event.resource.metadata.name, event.resource as ServiceEntry);
          }
          const all = [...holds.values()];
          const allocated = all.flatMap(({ status }) => status?.addresses ?? []);
          const values = allocated.map(({ value }) => value);
          expect(new Set(values).size).toBe(values.length);
          const declared = new Set(all.flatMap(({ spec }) => spec.addresses ?? []));
          expect(values.filter((value) => declared.has(value))).toEqual([]);
        }
      }),
    );
  });
});
