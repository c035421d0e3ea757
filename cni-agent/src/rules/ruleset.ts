// nftables rulesets as data, and their two text forms: the script that puts one in place in a single
// transaction, and the kernel's listing, which is compared with it. Does not run nft.
// Every rule carries a comment with a hash of its own text, so that a comparison does not depend on
// how a version of nft prints rules.

import { createHash } from "node:crypto";
import type { RulesState } from "./backend.ts";

export interface Rule {
  /** For people who read `nft list ruleset`. */
  readonly label: string;
  readonly text: string;
}

export interface Chain {
  readonly name: string;
  /** Base chains only, for instance `type nat hook output priority -100`. */
  readonly hook?: string;
  readonly rules: readonly Rule[];
}

export interface Table {
  readonly name: string;
  /** Whole `set` blocks; their elements are not compared. */
  readonly sets?: readonly string[];
  readonly chains: readonly Chain[];
}

/** Replaces the tables: one transaction, so no packet sees a state in between. */
export function renderInstall(tables: readonly Table[], absentTables: readonly string[]): string {
  return renderRemove([...absentTables, ...tables.map(({ name }) => name)]) + renderAdd(tables);
}

/** Removes tables; naming one first makes it exist, so that absence is no error. */
export function renderRemove(names: readonly string[]): string {
  return names.map((name) => `table inet ${name}\ndelete table inet ${name}\n`).join("");
}

/** Leaves the table's chains of these names without rules; makes them when they are absent. */
export function renderEmpty(table: string, chains: readonly string[]): string {
  return chains
    .map(
      (chain) => `table inet ${table} { chain ${chain} {}; }\nflush chain inet ${table} ${chain}\n`,
    )
    .join("");
}

function renderAdd(tables: readonly Table[]): string {
  return tables
    .map(({ name, sets = [], chains }) => {
      const bodies = [...sets, ...chains.map(renderChain)];
      return `table inet ${name} {\n${bodies.join("\n")}\n}\n`;
    })
    .join("");
}

function renderChain({ name, hook, rules }: Chain): string {
  const lines = rules.map((rule) => `    ${rule.text} comment "${ruleComment(rule)}"`);
  if (hook !== undefined) lines.unshift(`    ${hook}; policy accept;`);
  return `  chain ${name} {\n${lines.join("\n")}\n  }`;
}

/** What marks a rule as ours, and as it was written: at most 40 characters. */
export function ruleComment({ label, text }: Rule): string {
  return `${label} ${createHash("sha256").update(text).digest("hex").slice(0, 8)}`;
}

/** Compares the output of `nft list ruleset inet` with what should be there. */
export function compareListing(
  listing: string,
  tables: readonly Table[],
  absentTables: readonly string[],
): RulesState {
  const found = parseListing(listing);
  const ours = [...absentTables, ...tables.map(({ name }) => name)];
  if (!ours.some((name) => found.has(name))) return "absent";
  const surplus = absentTables.some((name) => found.has(name));
  const equal = tables.every((table) => sameChains(found.get(table.name), table));
  return equal && !surplus ? "ok" : "drifted";
}

interface FoundChain {
  hook: string | undefined;
  /** The comment of each rule in order; undefined for a rule that has none. */
  readonly comments: (string | undefined)[];
}

type FoundTables = Map<string, Map<string, FoundChain>>;

/** Reads tables, chains, hooks and rule comments off nft's listing; passes over sets. */
function parseListing(listing: string): FoundTables {
  const tables: FoundTables = new Map();
  let chains = new Map<string, FoundChain>();
  let chain: FoundChain | undefined;
  for (const raw of listing.split("\n")) {
    const line = raw.trim();
    const [, kind, name = ""] = /^(table inet|chain|set) (\S+) \{$/.exec(line) ?? [];
    if (kind === "table inet") tables.set(name, (chains = new Map()));
    else if (kind === "chain") chains.set(name, (chain = { hook: undefined, comments: [] }));
    else if (kind === "set" || line === "}") chain = undefined;
    else if (chain && line.startsWith("type ")) chain.hook = / hook (\S+)/.exec(line)?.[1];
    else if (chain && line !== "") chain.comments.push(/ comment "([^"]*)"$/.exec(line)?.[1]);
  }
  return tables;
}

function sameChains(found: Map<string, FoundChain> | undefined, table: Table): boolean {
  if (found?.size !== table.chains.length) return false;
  return table.chains.every(({ name, hook, rules }) => {
    const chain = found.get(name);
    if (chain === undefined || chain.comments.length !== rules.length) return false;
    if (chain.hook !== (hook && / hook (\S+)/.exec(hook)?.[1])) return false;
    return rules.every((rule, index) => chain.comments[index] === ruleComment(rule));
  });
}
