// Which of its addresses a namespace would send from: asked of the kernel by a UDP socket that connects,
// which sends nothing.

import { ipFamily, type Ip } from "../net/ip.ts";
import * as linux from "./constants.ts";
import { call, callRaw, closeFd } from "./libc.ts";
import { inNetns } from "./netns.ts";
import { decodeSockaddr, encodeSockaddr, SOCKADDR_BYTES_MAX } from "./sockaddr.ts";

/** Any port: nothing is sent to it. */
const PORT = 9;

/** Undefined when the namespace has no route there. Throws SystemError when it cannot be asked. */
export function sourceAddress(netnsFd: number | undefined, destination: Ip): Ip | undefined {
  const family = ipFamily(destination) === 4 ? linux.AF_INET : linux.AF_INET6;
  const type = linux.SOCK_DGRAM | linux.SOCK_CLOEXEC;
  return inNetns(netnsFd, () => {
    const fd = call("socket", "UDP", family, type, 0);
    try {
      const address = encodeSockaddr({ ip: destination, port: PORT });
      if (callRaw("connect", fd, address, address.length) !== 0) return undefined;
      return localIp(fd);
    } finally {
      closeFd(fd);
    }
  });
}

function localIp(fd: number): Ip | undefined {
  const address = Buffer.alloc(SOCKADDR_BYTES_MAX);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(SOCKADDR_BYTES_MAX);
  call("getsockname", "", fd, address, length);
  return decodeSockaddr(address)?.ip;
}
