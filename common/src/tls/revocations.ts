// All revocation lists in force, and the question they answer: is anything on this path revoked? What no
// list speaks of is not (ztunnel §5.3).

import type { CertificationPath } from "./certification-path.ts";
import type { RevocationList } from "./revocation-list.ts";

export class Revocations {
  #byIssuer: ReadonlyMap<string, readonly RevocationList[]> = new Map();

  replace(lists: readonly RevocationList[]): void {
    this.#byIssuer = Map.groupBy(lists, ({ issuer }) => issuer);
  }

  /** Why a path must not be trusted any more: the first certificate on it that its issuer took back. */
  objectionTo(path: CertificationPath): string | undefined {
    for (const [index, { serial, issuer, issuerKey }] of path.entries()) {
      const revoked = this.#byIssuer
        .get(issuer)
        ?.some((list) => list.serials.has(serial) && list.isSignedBy(issuerKey));
      if (!revoked) continue;
      const whose = index === 0 ? "certificate" : "intermediate certificate";
      return `${whose} revoked by CRL (serial ${serial})`;
    }
    return undefined;
  }
}
