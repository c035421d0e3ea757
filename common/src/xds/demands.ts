// Who waits for which on-demand name. A wait ends when the server sends a resource of that name or
// alias, or says that there is none; there is no timeout, the caller has its own.

import type { DeltaDiscoveryResponse } from "@ambit/api/gen/envoy/discovery_pb.ts";
import type { DemandResult, Rejection } from "./delta-types.ts";

interface Wait {
  readonly result: Promise<DemandResult>;
  readonly resolve: (result: DemandResult) => void;
}

export class Demands {
  readonly #waits = new Map<string, Wait>();

  /** Names not answered yet. */
  get names(): readonly string[] {
    return [...this.#waits.keys()];
  }

  /** Joins the wait for a name; `first` when it must be asked for. */
  wait(name: string): { readonly first: boolean; readonly result: Promise<DemandResult> } {
    const known = this.#waits.get(name);
    if (known !== undefined) return { first: false, result: known.result };
    const { promise: result, resolve } = Promise.withResolvers<DemandResult>();
    this.#waits.set(name, { result, resolve });
    return { first: true, result };
  }

  /** Releases the waits that an applied response answers. A rejected resource is an absent one. */
  answer(response: DeltaDiscoveryResponse, rejected: readonly Rejection[]): void {
    if (this.#waits.size === 0) return;
    const refused = new Set(rejected.map(({ name }) => name));
    for (const name of response.removedResources) this.#release(name, "absent");
    for (const { name, aliases } of response.resources) {
      const result = refused.has(name) ? "absent" : "present";
      for (const key of [name, ...aliases]) this.#release(key, result);
    }
  }

  close(): void {
    for (const name of this.names) this.#release(name, "closed");
  }

  #release(name: string, result: DemandResult): void {
    this.#waits.get(name)?.resolve(result);
    this.#waits.delete(name);
  }
}
