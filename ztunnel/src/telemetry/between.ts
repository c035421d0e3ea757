// What is the same for all connections between two workloads, found by their parties instead of by some
// twenty labels. One entry a pair: it holds for the service and identities that were seen last.

import type { ConnectionFacts } from "./connection-telemetry.ts";
import { isLasting, type Party } from "./party.ts";

interface Entry<T> {
  readonly facts: ConnectionFacts;
  readonly value: T;
}

export class Between<T> {
  readonly #entries = new WeakMap<Party, WeakMap<Party, Entry<T>>>();

  /** What `make` gave for connections with the same labels; asks it when that is not known. */
  find(facts: ConnectionFacts, make: () => T): T {
    const known = this.#entries.get(facts.source)?.get(facts.destination);
    if (known !== undefined && areAlike(known.facts, facts)) return known.value;
    const value = make();
    if (isLasting(facts.source) && isLasting(facts.destination)) this.#keep(facts, value);
    return value;
  }

  #keep(facts: ConnectionFacts, value: T): void {
    const ofSource = this.#entries.getOrInsertComputed(facts.source, newEntries<T>);
    ofSource.set(facts.destination, { facts, value });
  }
}

function newEntries<T>(): WeakMap<Party, Entry<T>> {
  return new WeakMap();
}

/** Of the same parties: whether all else that labels tell is the same, too. */
function areAlike(a: ConnectionFacts, b: ConnectionFacts): boolean {
  return (
    a.direction === b.direction &&
    a.service?.hostname === b.service?.hostname &&
    a.service?.namespace === b.service?.namespace &&
    a.service?.name === b.service?.name &&
    a.sourceIdentity === b.sourceIdentity &&
    a.destinationIdentity === b.destinationIdentity &&
    a.destinationPrincipal === b.destinationPrincipal
  );
}
