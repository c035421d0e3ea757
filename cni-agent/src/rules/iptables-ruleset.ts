// iptables rules as text: what iptables-save lists, compared with what should be there, and the input
// for iptables-restore that puts it there. Each table is replaced whole, by one commit, so packets meet
// the old rules or the new ones. Others' rules are not touched. Does not run anything.

import type { RulesState } from "./backend.ts";
import { ruleComment } from "./ruleset.ts";
import { type TableName, TABLES_IN_ORDER, type XtChain, type XtTable } from "./iptables-tables.ts";

/** Chains that an agent may have left: ours and Istio's have these names. */
const OUR_CHAIN = /^ISTIO_(OUTPUT|PRERT|POSTRT)$/;

/** The rules of each chain, as `iptables-save` prints them after "-A CHAIN ". */
export type Listing = ReadonlyMap<TableName, ReadonlyMap<string, readonly string[]>>;

/** Reads iptables-save's output; lines that are neither table, chain nor rule mean nothing. */
export function parseListing(text: string): Listing {
  const tables = new Map<TableName, Map<string, string[]>>();
  let chains = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const [, table] = /^\*(nat|mangle|raw)$/.exec(line) ?? [];
    const [, chain] = /^:(\S+) /.exec(line) ?? [];
    const [, owner = "", rule = ""] = /^(?:\[\d+:\d+\] )?-A (\S+) (.*)$/.exec(line) ?? [];
    if (table !== undefined) tables.set(table as TableName, (chains = new Map()));
    else if (line.startsWith("*")) chains = new Map();
    else if (chain !== undefined) chains.set(chain, []);
    else if (owner !== "") chains.get(owner)?.push(rule.trimEnd());
  }
  return tables;
}

/** What is in the kernel, measured against the wanted tables; further chains of ours are drift. */
export function compareTables(listing: Listing, wanted: readonly XtTable[]): RulesState {
  const found = TABLES_IN_ORDER.flatMap((name) => ourChains(listing, name));
  if (found.length === 0) return wanted.length === 0 ? "ok" : "absent";
  const chains = wanted.flatMap((table) => table.chains);
  const equal = wanted.every((table) =>
    table.chains.every((chain) => hasChain(listing, table.name, chain)),
  );
  return equal && found.length === chains.length && jumpsFit(listing, wanted) ? "ok" : "drifted";
}

function ourChains(listing: Listing, table: TableName): string[] {
  return [...(listing.get(table)?.keys() ?? [])].filter((chain) => OUR_CHAIN.test(chain));
}

/** By the comments, which carry a hash of what we wrote: versions print rules differently. */
function hasChain(listing: Listing, table: TableName, { name, rules }: XtChain): boolean {
  const found = listing.get(table)?.get(name);
  if (found?.length !== rules.length) return false;
  return rules.every((rule, index) => commentOf(found[index]!) === ruleComment(rule));
}

function commentOf(rule: string): string | undefined {
  return /--comment "([^"]*)"/.exec(rule)?.[1];
}

/** The jump comes first, so that nobody's rule can let packets past, and there is one. */
function jumpsFit(listing: Listing, wanted: readonly XtTable[]): boolean {
  return wanted.every(({ name, chains }) =>
    chains.every((chain) => {
      const rules = listing.get(name)?.get(chain.from) ?? [];
      return jumpsOf(rules).length === 1 && jumpTarget(rules[0]!) === chain.name;
    }),
  );
}

/**
 * iptables-restore's input that leaves exactly `wanted` of our chains in `tables`; empty: nothing to do.
 */
export function renderChange(
  listing: Listing,
  wanted: readonly XtTable[],
  tables: readonly TableName[] = TABLES_IN_ORDER,
): string {
  const order = wanted.length > 0 ? tables : tables.toReversed();
  return order
    .map((name) => {
      const chains = wanted.find((table) => table.name === name)?.chains ?? [];
      const lines = [...removeJumps(listing, name), ...replaceChains(listing, name, chains)];
      return lines.length === 0 ? "" : `*${name}\n${lines.join("\n")}\nCOMMIT\n`;
    })
    .join("");
}

function removeJumps(listing: Listing, table: TableName): string[] {
  const chains = [...(listing.get(table) ?? [])].filter(([name]) => !OUR_CHAIN.test(name));
  return chains.flatMap(([name, rules]) => jumpsOf(rules).map((rule) => `-D ${name} ${rule}`));
}

function replaceChains(listing: Listing, table: TableName, wanted: readonly XtChain[]): string[] {
  const unwanted = ourChains(listing, table).filter(
    (name) => !wanted.some((chain) => chain.name === name),
  );
  return [
    ...[...wanted.map(({ name }) => name), ...unwanted].map((name) => `:${name} - [0:0]`),
    ...wanted.flatMap(({ name, rules }) =>
      rules.map((rule) => `-A ${name} ${withComment(rule.text, ruleComment(rule))}`),
    ),
    ...wanted.map(({ name, from }) => `-I ${from} 1 -j ${name}`),
    ...unwanted.map((name) => `-X ${name}`),
  ];
}

function withComment(text: string, comment: string): string {
  return `-m comment --comment "${comment}" ${text}`;
}

function jumpsOf(rules: readonly string[]): string[] {
  return rules.filter((rule) => OUR_CHAIN.test(jumpTarget(rule) ?? ""));
}

function jumpTarget(rule: string): string | undefined {
  return /(?:^| )-j (\S+)$/.exec(rule)?.[1];
}
