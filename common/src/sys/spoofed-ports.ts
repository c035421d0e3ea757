// Ports for connections from addresses that are not ours. The owner of such an address may call the same
// destination itself, by ports of its own choice. Its SYN that met what is left of a connection of ours would
// get no answer for a second, or for as long as that one lives. Linux's connect() takes even ports while there are
// any (inet_hash_connect: of the parity of the range's first, 32768 by default); ours are odd, then.

import { randomInt } from "node:crypto";

/** The odd ones of the kernel's default net.ipv4.ip_local_port_range. */
const FIRST = 32_769;
const LAST = 60_999;
const COUNT = (LAST - FIRST) / 2 + 1;

/** Where others of this machine begin is not known. */
let next = FIRST + 2 * randomInt(COUNT);

/** One after the other, so that the one used longest ago comes next. */
export function nextSpoofedPort(): number {
  const port = next;
  next = port === LAST ? FIRST : port + 2;
  return port;
}
