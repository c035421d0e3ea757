// Who waits for which on-demand name, and which names the server said do not exist. A wait ends when the
// server sends a resource of that name or alias, or says that there is none; there is no timeout, the
// caller has its own. A name that does not exist stays subscribed, so that it is told when it does.

import type { DeltaDiscoveryResponse } from "@ambit/api/gen/envoy/discovery_pb.ts";
import type { DemandResult, Rejection } from "./delta-types.ts";

interface Wait {
  readonly result: Promise<DemandResult>;
  readonly resolve: (result: DemandResult) => void;
}

/** Names waited for at once: more than a node opens connections to new addresses. */
export const AWAITED_MAX = 10_000;

/** Names that do not exist, such as addresses outside the mesh; the longest known gives way. */
export const ABSENT_MAX = 10_000;

export class Demands {
  readonly #waits = new Map<string, Wait>();
  /** Subscribed names without a resource, in order of their last answer. */
  readonly #absent = new Set<string>();

  /** Names not answered yet. */
  get names(): readonly string[] {
    return [...this.#waits.keys()];
  }

  /** Joins the wait for a name; `first` when it must be asked for. "refused" when too many wait. */
  wait(name: string): { readonly first: boolean; readonly result: Promise<DemandResult> } {
    const known = this.#waits.get(name);
    if (known !== undefined) return { first: false, result: known.result };
    if (this.#absent.has(name)) return { first: false, result: Promise.resolve("absent") };
    if (this.#waits.size >= AWAITED_MAX) {
      return { first: false, result: Promise.resolve("refused") };
    }
    const { promise: result, resolve } = Promise.withResolvers<DemandResult>();
    this.#waits.set(name, { result, resolve });
    return { first: true, result };
  }

  /**
   * Releases the waits that an applied response answers. A rejected resource is an absent one.
   * Returns absent names beyond the limit, which are to be unsubscribed.
   */
  answer(response: DeltaDiscoveryResponse, rejected: readonly Rejection[]): string[] {
    const refused = new Set(rejected.map(({ name }) => name));
    for (const name of response.removedResources) this.#lose(name);
    for (const { name, aliases } of response.resources) {
      const result = refused.has(name) ? "absent" : "present";
      for (const key of [name, ...aliases]) {
        this.#absent.delete(key);
        this.#release(key, result);
      }
    }
    return this.#forgetOldest();
  }

  /** A new stream is subscribed only to what is held and awaited. */
  forgetAbsent(): void {
    this.#absent.clear();
  }

  close(): void {
    for (const name of this.names) this.#release(name, "closed");
  }

  /** Of what is removed, only what somebody asked for is worth remembering. */
  #lose(name: string): void {
    if (!this.#waits.has(name)) return;
    this.#absent.add(name);
    this.#release(name, "absent");
  }

  #forgetOldest(): string[] {
    const forgotten: string[] = [];
    for (const name of this.#absent) {
      if (this.#absent.size <= ABSENT_MAX) break;
      this.#absent.delete(name);
      forgotten.push(name);
    }
    return forgotten;
  }

  #release(name: string, result: DemandResult): void {
    this.#waits.get(name)?.resolve(result);
    this.#waits.delete(name);
  }
}
