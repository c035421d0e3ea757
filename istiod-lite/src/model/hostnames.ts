// Which object a host name belongs to when several claim it: in a namespace a Kubernetes Service, else the
// oldest ServiceEntry; in the mesh as a whole the same by all namespaces ("canonical").

import { ReferenceIndex } from "./reference-index.ts";

/** An object's title to host names. */
export interface Claim {
  readonly key: string;
  readonly namespace: string;
  readonly isService: boolean;
  /** Clients of other namespaces do not see it. */
  readonly isPrivate: boolean;
  readonly createdAt: string;
  readonly hosts: readonly string[];
}

export class Hostnames {
  readonly #claims = new Map<string, Claim>();
  readonly #byHost = new ReferenceIndex();

  /** Replaces what `key` claims. Returns the other objects that claim one of its hosts, old or new. */
  set(key: string, claim: Claim | undefined): Set<string> {
    const before = this.#claims.get(key);
    for (const host of before?.hosts ?? []) this.#byHost.delete(host, key);
    if (claim === undefined) this.#claims.delete(key);
    else this.#claims.set(key, claim);
    for (const host of claim?.hosts ?? []) this.#byHost.add(host, key);
    const rivals = new Set<string>();
    for (const host of [...(before?.hosts ?? []), ...(claim?.hosts ?? [])]) {
      for (const rival of this.#byHost.of(host)) if (rival !== key) rivals.add(rival);
    }
    return rivals;
  }

  /** Whether the object has the host in its namespace. */
  owns(key: string, host: string): boolean {
    return this.ownerBeside(key, host) === key;
  }

  /** Who has the host in the object's namespace; undefined when the object claims nothing. */
  ownerBeside(key: string, host: string): string | undefined {
    const claimant = this.#claims.get(key);
    if (claimant === undefined) return undefined;
    return this.#first(host, ({ namespace }) => namespace === claimant.namespace)?.key;
  }

  /** Whether the object is the one that the whole mesh means by the host. */
  isCanonical(key: string, host: string): boolean {
    return this.#first(host, ({ isPrivate }) => !isPrivate)?.key === key;
  }

  #first(host: string, counts: (claim: Claim) => boolean): Claim | undefined {
    let first: Claim | undefined;
    for (const key of this.#byHost.of(host)) {
      const claim = this.#claims.get(key)!;
      if (counts(claim) && (first === undefined || precedes(claim, first))) first = claim;
    }
    return first;
  }
}

function precedes(a: Claim, b: Claim): boolean {
  if (a.isService !== b.isService) return a.isService;
  return a.createdAt === b.createdAt ? a.key < b.key : a.createdAt < b.createdAt;
}
