// The addresses of a block that hosts of ServiceEntries get: neither its first nor its last, and no more
// than a mesh can have hosts. A host's address is where its name's hash points, or the next free one.

import { type Cidr, cidrContains } from "@ambit/common/net/cidr.ts";
import { type Ip, ipFamily, ipFromBytes, ipToBytes } from "@ambit/common/net/ip.ts";

/** As many as the usual IPv4 block (240.240.0.0/16) has. */
const ADDRESSES_MAX = 2 ** 16 - 2;

export class VipPool {
  readonly size: number;
  readonly #block: Cidr;

  constructor(block: Cidr) {
    this.#block = block;
    const bits = (ipFamily(block.ip) === 4 ? 32 : 128) - block.prefixLength;
    this.size = Math.min(ADDRESSES_MAX, 2 ** Math.min(bits, 32) - 2);
  }

  contains(ip: Ip): boolean {
    return cidrContains(this.#block, ip);
  }

  /** The first address from where `name` points that is free; undefined when none is. */
  find(name: string, isFree: (ip: Ip) => boolean): Ip | undefined {
    const start = hash(name) % this.size;
    for (let i = 0; i < this.size; i++) {
      const ip = this.#at((start + i) % this.size);
      if (isFree(ip)) return ip;
    }
    return undefined;
  }

  #at(index: number): Ip {
    const bytes = Buffer.from(ipToBytes(this.#block.ip));
    const at = bytes.length - 4;
    bytes.writeUInt32BE(bytes.readUInt32BE(at) + index + 1, at);
    return ipFromBytes(bytes)!;
  }
}

/** FNV-1a: the same address after a restart, even where no status was written. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  }
  return value >>> 0;
}
