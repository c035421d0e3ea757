import { beforeEach, describe, expect, it } from "vitest";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";
import type { ProbeTargets, RedirectionBackend } from "../rules/backend.ts";
import { ProbeExemption } from "./probe-exemption.ts";

const ip = (text: string): Ip => parseIp(text)!;
const ONE = ip("10.0.0.1");
const TWO = ip("10.0.0.2");

let kernel: ProbeTargets;
let writes: number;
let failNext: boolean;
let probes: ProbeExemption;

beforeEach(() => {
  kernel = new Map();
  writes = 0;
  failNext = false;
  const backend: Pick<RedirectionBackend, "installHost" | "readHost"> = {
    installHost: (targets) => {
      writes++;
      if (failNext) {
        failNext = false;
        return Promise.reject(new Error("no nft"));
      }
      kernel = targets;
      return Promise.resolve();
    },
    readHost: () => Promise.resolve(kernel),
  };
  probes = new ProbeExemption(backend as RedirectionBackend);
});

describe("probe exemption", () => {
  it("keeps each pod's addresses as they are now", async () => {
    await probes.set("a", [ONE, TWO]);
    await probes.set("a", [TWO]);
    expect(kernel).toEqual(new Map([[TWO, { uid: "a" }]]));
    await probes.remove("a");
    expect(kernel).toEqual(new Map());
  });

  it("does not take an address from the pod that has it now", async () => {
    await probes.set("old", [ONE]);
    await probes.set("new", [ONE]);
    await probes.remove("old");
    expect(kernel).toEqual(new Map([[ONE, { uid: "new" }]]));
  });

  it("does not prune at start when the picture is incomplete", async () => {
    kernel = new Map([[ONE, { uid: "unknown" }]]);
    await probes.start(new Map([[TWO, { uid: "b" }]]), false);
    expect(kernel.size).toBe(2);
  });

  it("prunes at start when it is complete", async () => {
    kernel = new Map([[ONE, { uid: "stale" }]]);
    await probes.start(new Map([[TWO, { uid: "b" }]]), true);
    expect(kernel).toEqual(new Map([[TWO, { uid: "b" }]]));
  });

  it("writes once for many pods that come together, and not at all for no change", async () => {
    await Promise.all(["a", "b", "c"].map((uid, i) => probes.set(uid, [ip(`10.0.0.${i}`)])));
    expect(kernel.size).toBe(3);
    expect(writes).toBe(1);
    await probes.set("a", [ip("10.0.0.0")]);
    expect(writes).toBe(1);
  });

  it("writes again when the pod is captured in another way, or the node knows probes in another", async () => {
    await probes.set("a", [ONE]);
    await probes.set("a", [ONE], 7);
    expect(kernel).toEqual(new Map([[ONE, { uid: "a", slot: 7 }]]));
    await probes.set("a", [ONE], 7);
    expect(writes).toBe(2);
    await probes.renew();
    expect(writes).toBe(3);
  });

  it("tells of a failed write and writes the whole set the next time", async () => {
    failNext = true;
    await expect(probes.set("a", [ONE])).rejects.toThrow("no nft");
    await probes.set("a", [ONE]);
    expect(kernel).toEqual(new Map([[ONE, { uid: "a" }]]));
  });
});
