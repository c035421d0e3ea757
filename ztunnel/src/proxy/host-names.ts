// The addresses of workloads that have only a hostname, looked up when one is dialed, as ztunnel itself
// sees DNS. Answers are kept for as long as they say; a name that fails is asked again by the next.

import { Resolver } from "node:dns/promises";
import { type Ip, type IpFamily, ipFamily, parseIp } from "@ambit/common/net/ip.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Random } from "../state/endpoint-choice.ts";
import { lookUpInHosts } from "./hosts-file.ts";
import { ProxyError } from "./proxy-error.ts";

/** As ztunnel's: far more names than a node's pods talk to. */
export const NAMES_KEPT_MAX = 4_096;
/** Different names asked for at once; one more is refused, so that a dead server costs little. */
export const LOOKUPS_MAX = 256;
/** How long a connection waits for its name: glibc's patience. */
export const LOOKUP_TIMEOUT_MS = 5_000;
/** Answers that may not be kept are kept so long: one lookup for a burst of connections. */
const KEPT_MS_MIN = 1_000;
/** A record that claims to hold for a year is asked again daily. */
const KEPT_MS_MAX = 86_400_000;

export interface NameAnswer {
  readonly ips: readonly Ip[];
  readonly ttlSeconds: number;
}

/** Rejects when the name does not exist or nobody answers. */
export type NameLookup = (hostname: string) => Promise<NameAnswer>;

interface Kept {
  readonly ips: readonly Ip[];
  readonly untilMs: number;
}

export class HostNames {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #lookup: NameLookup;
  /** In order of arrival: the oldest leaves first. */
  readonly #kept = new Map<string, Kept>();
  readonly #asked = new Map<string, Promise<readonly Ip[]>>();

  constructor(clock: Clock, random: Random, lookup: NameLookup = systemLookup()) {
    this.#clock = clock;
    this.#random = random;
    this.#lookup = lookup;
  }

  /** A random address, of the preferred family if there is one. Rejects with CONNECT_FAILED. */
  async find(hostname: string, family: IpFamily): Promise<Ip> {
    const literal = parseIp(hostname);
    if (literal !== undefined) return literal;
    const ips = this.#current(hostname) ?? (await this.#ask(hostname));
    const preferred = ips.filter((ip) => ipFamily(ip) === family);
    const choice = preferred.length > 0 ? preferred : ips;
    const ip = choice[Math.floor(this.#random() * choice.length)];
    if (ip === undefined) throw failed(hostname, "it has no address");
    return ip;
  }

  #current(hostname: string): readonly Ip[] | undefined {
    const kept = this.#kept.get(hostname);
    if (kept === undefined) return undefined;
    if (kept.untilMs > this.#clock.monotonicMs()) return kept.ips;
    this.#kept.delete(hostname);
    return undefined;
  }

  #ask(hostname: string): Promise<readonly Ip[]> {
    const asked = this.#asked.get(hostname);
    if (asked !== undefined) return asked;
    if (this.#asked.size >= LOOKUPS_MAX) {
      return Promise.reject(failed(hostname, `${LOOKUPS_MAX} other names are waited for already`));
    }
    const answer = this.#askNow(hostname).finally(() => this.#asked.delete(hostname));
    this.#asked.set(hostname, answer);
    return answer;
  }

  async #askNow(hostname: string): Promise<readonly Ip[]> {
    try {
      const { ips, ttlSeconds } = await this.#inTime(this.#lookup(hostname));
      this.#keep(hostname, ips, ttlSeconds);
      return ips;
    } catch (error) {
      throw failed(hostname, errorMessage(error), error);
    }
  }

  #inTime<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(LOOKUP_TIMEOUT_MS, () =>
        reject(new Error(`no answer within ${LOOKUP_TIMEOUT_MS / 1000} s`)),
      );
      work.then(resolve, reject).finally(() => timer.cancel());
    });
  }

  #keep(hostname: string, ips: readonly Ip[], ttlSeconds: number): void {
    if (this.#kept.size >= NAMES_KEPT_MAX) {
      const [oldest] = this.#kept.keys();
      if (oldest !== undefined) this.#kept.delete(oldest);
    }
    const keptMs = Math.min(Math.max(ttlSeconds * 1000, KEPT_MS_MIN), KEPT_MS_MAX);
    this.#kept.set(hostname, { ips, untilMs: this.#clock.monotonicMs() + keptMs });
  }
}

function failed(hostname: string, why: string, cause?: unknown): ProxyError {
  return new ProxyError("CONNECT_FAILED", `hostname ${hostname} does not resolve: ${why}`, cause);
}

/** One try of one server; two tries fit into what a connection waits. */
const TRY_TIMEOUT_MS = 2_000;
/** The hosts file says nothing of lifetimes. */
const HOSTS_TTL_SECONDS = 30;

/**
 * What the hosts file says, else A and AAAA at once from the servers of resolv.conf, or from `servers`.
 * Names are absolute: there is no search list.
 */
export function systemLookup(servers?: readonly string[]): NameLookup {
  const resolver = new Resolver({ timeout: TRY_TIMEOUT_MS, tries: 2 });
  if (servers !== undefined) resolver.setServers(servers);
  return async (hostname) => {
    const known = await lookUpInHosts(hostname.toLowerCase());
    if (known.length > 0) return { ips: known, ttlSeconds: HOSTS_TTL_SECONDS };
    const [a, aaaa] = await Promise.allSettled([
      resolver.resolve4(hostname, { ttl: true }),
      resolver.resolve6(hostname, { ttl: true }),
    ]);
    const records = [a, aaaa].flatMap((answer) =>
      answer.status === "fulfilled" ? answer.value : [],
    );
    if (records.length === 0 && a.status === "rejected") throw a.reason;
    return {
      ips: records.flatMap(({ address }) => parseIp(address) ?? []),
      ttlSeconds: Math.min(...records.map(({ ttl }) => ttl)),
    };
  };
}
