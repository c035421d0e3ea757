import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { DeltaDiscoveryResponseSchema } from "@ambit/api/gen/envoy/discovery_pb.ts";
import { ABSENT_MAX, AWAITED_MAX, Demands } from "./demands.ts";

const response = (fields: MessageInitShape<typeof DeltaDiscoveryResponseSchema>) =>
  create(DeltaDiscoveryResponseSchema, fields);
const absent = (...removedResources: string[]) => response({ removedResources });

describe("a demanded name", () => {
  it("is asked for once, however many wait", async () => {
    const demands = new Demands();
    const [one, two] = [demands.wait("a"), demands.wait("a")];
    expect([one.first, two.first]).toEqual([true, false]);
    demands.answer(response({ resources: [{ name: "uid", aliases: ["a"] }] }), []);
    expect(await Promise.all([one.result, two.result])).toEqual(["present", "present"]);
    expect(demands.names).toEqual([]);
  });

  it("that is absent is not asked for again, until it comes or the stream is new", async () => {
    const demands = new Demands();
    demands.wait("a");
    demands.answer(absent("a"), []);
    expect(await demands.wait("a").result).toBe("absent");
    demands.answer(response({ resources: [{ name: "uid", aliases: ["a"] }] }), []);
    expect(demands.wait("a").first).toBe(true);
    demands.answer(absent("a"), []);
    demands.forgetAbsent();
    expect(demands.wait("a").first).toBe(true);
  });

  it("counts as absent when its resource was rejected", async () => {
    const demands = new Demands();
    const { result } = demands.wait("a");
    demands.answer(response({ resources: [{ name: "a" }] }), [{ name: "a", reason: "bad" }]);
    expect(await result).toBe("absent");
  });

  it("is not remembered when it was removed and nobody asked", () => {
    const demands = new Demands();
    demands.answer(absent("a"), []);
    expect(demands.wait("a").first).toBe(true);
  });

  it("ends as closed with the client", async () => {
    const demands = new Demands();
    const { result } = demands.wait("a");
    demands.close();
    expect(await result).toBe("closed");
  });
});

describe("what is kept is bounded", () => {
  const names = (count: number) => Array.from({ length: count }, (_, i) => `n${i}`);

  it("one name more than the limit is not waited for", async () => {
    const demands = new Demands();
    for (const name of names(AWAITED_MAX)) demands.wait(name);
    expect(demands.wait("n0").first).toBe(false);
    const { first, result } = demands.wait("one-more");
    expect([first, await result]).toEqual([false, "refused"]);
  });

  it("the absent name known longest is given up, to be unsubscribed", () => {
    const demands = new Demands();
    const all = names(ABSENT_MAX);
    for (const name of all) demands.wait(name);
    expect(demands.answer(absent(...all), [])).toEqual([]);
    demands.wait("one-more");
    expect(demands.answer(absent("one-more"), [])).toEqual(["n0"]);
    expect(demands.wait("n0").first).toBe(true);
    expect(demands.wait("n1").first).toBe(false);
  });
});
