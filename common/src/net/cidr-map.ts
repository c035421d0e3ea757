// A map from CIDR blocks to values that answers which blocks hold an address: one binary trie per
// family, so a look-up costs the address's bits whatever the number of blocks. Does not rank what it
// finds: callers choose among the matches.

import type { Cidr } from "./cidr.ts";
import { type Ip, ipFamily, ipToBytes } from "./ip.ts";

interface Node<V> {
  zero: Node<V> | undefined;
  one: Node<V> | undefined;
  /** Set when a block ends here. */
  entry: Entry<V> | undefined;
}

interface Entry<V> {
  readonly cidr: Cidr;
  value: V;
}

export class CidrMap<V> {
  readonly #v4 = newNode<V>();
  readonly #v6 = newNode<V>();
  #size = 0;

  /** Blocks held. */
  get size(): number {
    return this.#size;
  }

  get(cidr: Cidr): V | undefined {
    return this.#find(cidr)?.entry?.value;
  }

  /** Adds a block or replaces its value. The block's host bits must be clear, as makeCidr leaves them. */
  set(cidr: Cidr, value: V): void {
    const bytes = ipToBytes(cidr.ip);
    let node = this.#root(cidr.ip);
    for (let i = 0; i < cidr.prefixLength; i++) {
      node = bitAt(bytes, i) ? (node.one ??= newNode()) : (node.zero ??= newNode());
    }
    if (node.entry !== undefined) {
      node.entry.value = value;
      return;
    }
    node.entry = { cidr, value };
    this.#size++;
  }

  /** Removes a block and the branch that only it needed; false when it was not there. */
  delete(cidr: Cidr): boolean {
    const removed = prune(this.#root(cidr.ip), ipToBytes(cidr.ip), 0, cidr.prefixLength);
    if (removed) this.#size--;
    return removed;
  }

  /** Calls `visit` for every block that holds `ip`, the widest first. */
  forEachMatch(ip: Ip, visit: (value: V, cidr: Cidr) => void): void {
    const bytes = ipToBytes(ip);
    const bits = bytes.length * 8;
    let node: Node<V> | undefined = this.#root(ip);
    for (let i = 0; node !== undefined; i++) {
      if (node.entry !== undefined) visit(node.entry.value, node.entry.cidr);
      if (i === bits) return;
      node = bitAt(bytes, i) ? node.one : node.zero;
    }
  }

  /** The value of the narrowest block that holds `ip`. */
  longestMatch(ip: Ip): V | undefined {
    let narrowest: V | undefined;
    this.forEachMatch(ip, (value) => (narrowest = value));
    return narrowest;
  }

  #root(ip: Ip): Node<V> {
    return ipFamily(ip) === 4 ? this.#v4 : this.#v6;
  }

  #find({ ip, prefixLength }: Cidr): Node<V> | undefined {
    const bytes = ipToBytes(ip);
    let node: Node<V> | undefined = this.#root(ip);
    for (let i = 0; i < prefixLength && node !== undefined; i++) {
      node = bitAt(bytes, i) ? node.one : node.zero;
    }
    return node;
  }
}

function newNode<V>(): Node<V> {
  return { zero: undefined, one: undefined, entry: undefined };
}

function bitAt(bytes: Uint8Array, index: number): boolean {
  return ((bytes[index >> 3]! >> (7 - (index & 7))) & 1) === 1;
}

/** Recursion is bounded by the family's 128 bits. */
function prune<V>(node: Node<V>, bytes: Uint8Array, depth: number, length: number): boolean {
  if (depth === length) {
    if (node.entry === undefined) return false;
    node.entry = undefined;
    return true;
  }
  const side = bitAt(bytes, depth) ? "one" : "zero";
  const child = node[side];
  if (child === undefined || !prune(child, bytes, depth + 1, length)) return false;
  if (child.entry === undefined && child.zero === undefined && child.one === undefined) {
    node[side] = undefined;
  }
  return true;
}
