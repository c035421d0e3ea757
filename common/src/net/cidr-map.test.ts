import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { describe, expect, it } from "vitest";
import { type Cidr, cidrContains, formatCidr, makeCidr, parseCidr } from "./cidr.ts";
import { CidrMap } from "./cidr-map.ts";
import { type Ip, ipFamily, ipFromBytes, parseIp } from "./ip.ts";

const cidr = (text: string): Cidr => parseCidr(text)!;
const ip = (text: string): Ip => parseIp(text)!;

/** Addresses that share long prefixes often, so that blocks really nest. */
const bytesOf = (length: number) =>
  fc.array(fc.constantFrom(0, 1, 0x80, 0xfd, 0xff), { minLength: length, maxLength: length });
const anyIp = fc
  .oneof(bytesOf(4), bytesOf(16))
  .map((bytes) => ipFromBytes(Uint8Array.from(bytes))!);
const anyCidr = fc
  .tuple(anyIp, fc.nat(128))
  .map(([address, length]) => makeCidr(address, ipFamily(address) === 4 ? length % 33 : length)!)
  .filter((block) => block !== undefined);

function matches(map: CidrMap<string>, address: Ip): string[] {
  const found: string[] = [];
  map.forEachMatch(address, (value) => found.push(value));
  return found;
}

describe("a CIDR block", () => {
  it.each<[string, string, boolean]>([
    ["10.0.0.0/8", "10.255.255.255", true],
    ["10.0.0.0/8", "11.0.0.0", false],
    ["0.0.0.0/0", "255.255.255.255", true],
    ["0.0.0.0/0", "::1", false],
    ["::/0", "10.0.0.1", false],
    ["192.0.2.1/32", "192.0.2.1", true],
    ["192.0.2.1/32", "192.0.2.0", false],
    ["128.0.0.0/1", "128.0.0.1", true],
    ["128.0.0.0/1", "127.255.255.255", false],
    ["fd00::/8", "fdff::1", true],
    ["fd00::/9", "fd80::1", false],
    ["2001:db8::1/128", "2001:db8::1", true],
    ["2001:db8::/127", "2001:db8::2", false],
  ])("%s holds %s: %s", (block, address, expected) => {
    expect(cidrContains(cidr(block), ip(address))).toBe(expected);
  });

  it("holds what ipaddr.js says it holds", () => {
    fc.assert(
      fc.property(anyCidr, anyIp, (block, address) => {
        const parsed = ipaddr.parse(address);
        const oracle =
          ipFamily(address) === ipFamily(block.ip) &&
          parsed.match(ipaddr.parse(block.ip), block.prefixLength);
        expect(cidrContains(block, address)).toBe(oracle);
      }),
    );
  });
});

describe("a CIDR map", () => {
  it("finds every block around an address, the widest first", () => {
    const map = new CidrMap<string>();
    for (const text of ["10.1.0.0/16", "0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "fd00::/8"]) {
      map.set(cidr(text), text);
    }
    expect(matches(map, ip("10.1.2.3"))).toEqual([
      "0.0.0.0/0",
      "10.0.0.0/8",
      "10.1.0.0/16",
      "10.1.2.3/32",
    ]);
    expect(map.longestMatch(ip("10.1.9.9"))).toBe("10.1.0.0/16");
    expect(map.longestMatch(ip("fd12::1"))).toBe("fd00::/8");
    expect(map.longestMatch(ip("fe80::1"))).toBeUndefined();
  });

  it("replaces the value of a block it has, and forgets one that is deleted", () => {
    const map = new CidrMap<string>();
    map.set(cidr("10.0.0.0/8"), "old");
    map.set(cidr("10.0.0.0/8"), "new");
    expect([map.size, map.get(cidr("10.0.0.0/8"))]).toEqual([1, "new"]);
    expect(map.delete(cidr("10.0.0.0/9"))).toBe(false);
    expect(map.delete(cidr("10.0.0.0/8"))).toBe(true);
    expect([map.size, map.longestMatch(ip("10.0.0.1"))]).toEqual([0, undefined]);
  });

  it("keeps a wide block when a narrow one inside it goes, and the other way round", () => {
    const map = new CidrMap<string>();
    map.set(cidr("fd00::/8"), "wide");
    map.set(cidr("fd00::/64"), "narrow");
    map.delete(cidr("fd00::/64"));
    expect(matches(map, ip("fd00::1"))).toEqual(["wide"]);
    map.set(cidr("fd00::/64"), "narrow");
    map.delete(cidr("fd00::/8"));
    expect(matches(map, ip("fd00::1"))).toEqual(["narrow"]);
  });

  it("agrees with a scan by ipaddr.js, whatever was set and deleted before", () => {
    const step = fc.record({ cidr: anyCidr, remove: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.array(anyIp, { maxLength: 10 }), scan),
    );
  });
});

function scan(steps: { cidr: Cidr; remove: boolean }[], addresses: Ip[]): void {
  const map = new CidrMap<string>();
  const reference = new Map<string, Cidr>();
  for (const { cidr: block, remove } of steps) {
    const key = formatCidr(block);
    if (remove) expect(map.delete(block)).toBe(reference.delete(key));
    else {
      map.set(block, key);
      reference.set(key, block);
    }
  }
  expect(map.size).toBe(reference.size);
  for (const address of [...addresses, ...steps.map(({ cidr: block }) => block.ip)]) {
    const expected = [...reference.values()]
      .filter((block) => ipFamily(block.ip) === ipFamily(address))
      .filter((b) => ipaddr.parse(address).match(ipaddr.parse(b.ip), b.prefixLength))
      .sort((a, b) => a.prefixLength - b.prefixLength)
      .map(formatCidr);
    expect(matches(map, address)).toEqual(expected);
  }
}
