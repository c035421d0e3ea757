// What a running mesh says to the person in front of it: who talks to whom with which identity, from
// the access lines of every node's ztunnel. A pair is introduced once in full, then summed up.

import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { parseSpiffeId } from "@ambit/common/tls/identity.ts";
import { type AccessLine, parseAccessLine } from "./access-line.ts";
import { LineReader } from "./follow.ts";

const POLL_MS = 250;
const SUMMARY_MS = 15_000;
/** Pairs remembered; past it the narration forgets all and introduces them anew. */
const PAIRS_MAX = 1_000;
/** Refusals come in storms; more than this per poll are only counted. */
const REFUSALS_PER_POLL_MAX = 5;

export interface NarratorOptions {
  readonly logs: readonly string[];
  readonly clock: Clock;
  readonly print: (line: string) => void;
}

interface Pair {
  readonly text: string;
  connections: number;
}

export class Narrator {
  readonly #options: NarratorOptions;
  readonly #readers: readonly LineReader[];
  readonly #pairs = new Map<string, Pair>();
  #timer: Timer | undefined;
  #summaryDueMs: number;

  constructor(options: NarratorOptions) {
    this.#options = options;
    this.#readers = options.logs.map((path) => new LineReader(path));
    this.#summaryDueMs = options.clock.monotonicMs() + SUMMARY_MS;
  }

  start(): void {
    this.#timer = this.#options.clock.after(POLL_MS, () => {
      this.#poll();
      this.start();
    });
  }

  stop(): void {
    this.#timer?.cancel();
    for (const reader of this.#readers) reader.close();
  }

  #poll(): void {
    let refusals = 0;
    for (const line of this.#readers.flatMap((reader) => reader.read())) {
      const access = parseAccessLine(line);
      if (access === undefined) continue;
      if (access.error !== undefined) {
        if (refusals++ < REFUSALS_PER_POLL_MAX) this.#options.print(describeFailure(access));
      } else if (access.direction === "outbound") this.#count(access);
    }
    if (refusals > REFUSALS_PER_POLL_MAX) {
      this.#options.print(`  … and ${refusals - REFUSALS_PER_POLL_MAX} more failed connections`);
    }
    this.#summarize();
  }

  #count(access: AccessLine): void {
    const text = describePair(access);
    const key = `${text} ${access.path}`;
    const known = this.#pairs.get(key);
    if (known !== undefined) return void known.connections++;
    if (this.#pairs.size >= PAIRS_MAX) this.#pairs.clear();
    this.#pairs.set(key, { text, connections: 1 });
    this.#options.print(`  ${text}: ${describeIdentities(access)}`);
  }

  #summarize(): void {
    const { clock, print } = this.#options;
    if (clock.monotonicMs() < this.#summaryDueMs) return;
    this.#summaryDueMs = clock.monotonicMs() + SUMMARY_MS;
    const busy = [...this.#pairs.values()].filter(({ connections }) => connections > 0);
    if (busy.length === 0) return;
    const total = busy.reduce((sum, { connections }) => sum + connections, 0);
    const list = busy.map(({ text, connections }) => `${text} ${connections}`).join(", ");
    print(`  last ${SUMMARY_MS / 1000} s, ${total} connections: ${list}`);
    for (const pair of busy) pair.connections = 0;
  }
}

/** "page -> reviews": the Deployment's name instead of the pod's, the Service's short name. */
export function describePair({ source, destination }: AccessLine): string {
  return `${shortPod(source)} -> ${destination.replace(/\.svc\.cluster\.local$/, "")}`;
}

function shortPod(name: string): string {
  return name.replace(/-[0-9a-f]{10}-[a-z0-9]{5}$/, "");
}

const PATHS: Readonly<Record<string, string>> = {
  hbone: "mTLS tunnel",
  local: "inside the node, both identities checked",
  direct: "past ztunnel inside the node, both identities checked before",
  tcp: "plain TCP",
};

export function describeIdentities(access: AccessLine): string {
  const { sourceIdentity, destinationIdentity, path } = access;
  const how = PATHS[path] ?? path;
  if (sourceIdentity === undefined || destinationIdentity === undefined)
    return `${how}, no identity`;
  return `${shortIdentity(sourceIdentity)} to ${shortIdentity(destinationIdentity)}, ${how}`;
}

function shortIdentity(text: string): string {
  const identity = parseSpiffeId(text);
  return identity === undefined ? text : `${identity.namespace}/${identity.serviceAccount}`;
}

function describeFailure(access: AccessLine): string {
  return `  ${describePair(access)} FAILED: ${access.error}${access.reason ? ` (${access.reason})` : ""}`;
}
