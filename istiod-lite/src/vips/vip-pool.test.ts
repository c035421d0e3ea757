import { describe, expect, it } from "vitest";
import { parseCidr } from "@ambit/common/net/cidr.ts";
import { parseIp } from "@ambit/common/net/ip.ts";
import { VipPool } from "./vip-pool.ts";

const pool = (text: string) => new VipPool(parseCidr(text)!);

describe("a pool of virtual addresses", () => {
  it.each([
    ["240.240.0.0/16", 65_534],
    ["10.0.0.0/8", 65_534],
    ["10.0.0.0/30", 2],
    ["2001:2::/48", 65_534],
    ["fd00::/126", 2],
  ])("of %s holds %i", (block, size) => {
    expect(pool(block).size).toBe(size);
  });

  it("hands out every address but the first and the last, each once, then none", () => {
    const taken = new Set<string>();
    const small = pool("10.0.0.8/29");
    for (let ip = small.find("x", () => true); ip !== undefined;) {
      expect(small.contains(ip)).toBe(true);
      taken.add(ip);
      ip = small.find("x", (candidate) => !taken.has(candidate));
    }
    expect([...taken].sort()).toEqual(
      ["10.0.0.9", "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"].sort(),
    );
  });

  it("gives a name the same address every time", () => {
    const find = (name: string) => pool("240.240.0.0/16").find(name, () => true);
    expect(find("shop/a/h.test")).toBe(find("shop/a/h.test"));
    expect(find("shop/a/h.test")).not.toBe(find("shop/a/i.test"));
  });

  it("knows its own", () => {
    expect(pool("240.240.0.0/16").contains(parseIp("240.240.9.9")!)).toBe(true);
    expect(pool("240.240.0.0/16").contains(parseIp("240.241.0.1")!)).toBe(false);
    expect(pool("2001:2::/48").find("x", () => true)).toMatch(/^2001:2::/);
  });
});
