// What rtnetlink is told is what `ip` shows, and the other way round.

import { execFileSync } from "node:child_process";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Ip } from "../net/ip.ts";
import { hasInetTable } from "./netlink-nftables.ts";
import { PolicyRouting } from "./netlink-route.ts";
import { createNetns, inNetns, type NetnsHandle } from "./netns.ts";

const RULE = { priority: 32_764, mark: 0x111, mask: 0xfff, table: 100 };
const ADDRESS = { 4: "192.0.2.1" as Ip, 6: "2001:db8::1" as Ip } as const;

let netns: NetnsHandle;
let routing: PolicyRouting;
beforeEach(() => {
  netns = createNetns();
  ip("link set lo up");
  ip(`addr add ${ADDRESS[4]}/32 dev lo`);
  ip(`addr add ${ADDRESS[6]}/128 dev lo nodad`);
  routing = new PolicyRouting(netns.fd);
});
afterEach(() => {
  routing[Symbol.dispose]();
  netns.close();
});

function run(program: string, words: string): string {
  return inNetns(netns.fd, () => execFileSync(program, words.split(" "), { encoding: "utf8" }));
}

const ip = (words: string) => run("ip", words);

describe.each([4, 6] as const)("IPv%i", (family) => {
  it("rules are those that ip shows, and absent again when they are removed", () => {
    expect(routing.hasRule(family, RULE)).toBe(false);
    routing.addRule(family, RULE);
    routing.addRule(family, RULE);
    expect(ip(`-${family} rule show priority 32764`)).toBe(
      "32764:\tfrom all fwmark 0x111/0xfff lookup 100\n",
    );
    expect(routing.hasRule(family, RULE)).toBe(true);
    expect(routing.hasRule(family, { ...RULE, table: 101 })).toBe(false);
    routing.removeRule(family, RULE);
    routing.removeRule(family, RULE);
    expect(ip(`-${family} rule show priority 32764`)).toBe("");
  });

  it("routes make everything local, from the source that is given last", () => {
    expect(routing.hasLocalRoute(family, 100)).toBe(false);
    routing.addLocalRoute(family, 100, undefined, false);
    routing.addLocalRoute(family, 100, undefined, false);
    expect(ip(`-${family} route show table 100`)).toMatch(/^local default dev lo /);
    routing.addLocalRoute(family, 100, ADDRESS[family], true);
    const shown = ip(`-${family} route show table 100`);
    expect(shown).toMatch(`local default dev lo`);
    expect(shown).toContain(`src ${ADDRESS[family]} `);
    expect(shown.trim().split("\n")).toHaveLength(1);
    expect(routing.hasLocalRoute(family, 100)).toBe(true);
    routing.removeLocalRoute(family, 100);
    routing.removeLocalRoute(family, 100);
    expect(routing.hasLocalRoute(family, 100)).toBe(false);
  });

  it("takes away what ip has added", () => {
    ip(`-${family} rule add priority 32764 fwmark 0x111/0xfff lookup 100`);
    ip(`-${family} route add local default dev lo table 100`);
    expect(routing.hasRule(family, RULE)).toBe(true);
    expect(routing.hasLocalRoute(family, 100)).toBe(true);
    routing.removeRule(family, RULE);
    routing.removeLocalRoute(family, 100);
    expect(routing.hasRule(family, RULE)).toBe(false);
    expect(routing.hasLocalRoute(family, 100)).toBe(false);
  });

  it("says what the kernel refuses", () => {
    const elsewhere = family === 4 ? ("198.51.100.1" as Ip) : ("2001:db8:1::1" as Ip);
    const add = () => routing.addLocalRoute(family, 100, elsewhere, true);
    expect(add).toThrow(/rtnetlink: EINVAL/);
  });
});

it("tells whether nf_tables has a table", () => {
  expect(hasInetTable(netns.fd, "ours")).toBe(false);
  run("nft", "add table inet ours");
  expect(hasInetTable(netns.fd, "ours")).toBe(true);
  expect(hasInetTable(netns.fd, "our")).toBe(false);
});
