// Who has an address, network by network. Several may: the list keeps the order of arrival, so that
// the caller's ranking can say what the first or the newest is worth. Look-ups make no keys.

import type { Ip } from "@ambit/common/net/ip.ts";
import type { NetworkAddress } from "./workload.ts";

export class AddressIndex<T> {
  readonly #networks = new Map<string, Map<Ip, readonly T[]>>();

  /** Those that have the address, in order of arrival. */
  get({ network, ip }: NetworkAddress): readonly T[] {
    return this.#networks.get(network)?.get(ip) ?? NOBODY;
  }

  add({ network, ip }: NetworkAddress, item: T): void {
    const addresses = this.#networks.getOrInsertComputed(network, newAddresses<T>);
    const others = addresses.get(ip);
    addresses.set(ip, others === undefined ? [item] : [...others, item]);
  }

  /** Does nothing when `item` does not have the address. */
  remove({ network, ip }: NetworkAddress, item: T): void {
    const addresses = this.#networks.get(network);
    const rest = addresses?.get(ip)?.filter((other) => other !== item);
    if (addresses === undefined || rest === undefined) return;
    if (rest.length > 0) addresses.set(ip, rest);
    else addresses.delete(ip);
    if (addresses.size === 0) this.#networks.delete(network);
  }
}

const NOBODY: readonly never[] = [];

function newAddresses<T>(): Map<Ip, readonly T[]> {
  return new Map();
}
