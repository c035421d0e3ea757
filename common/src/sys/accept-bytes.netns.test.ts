// Accepting where the process has no descriptors left, which is a process's own matter: no other test may
// run in it.

import { once } from "node:events";
import net from "node:net";
import { setTimeout } from "node:timers/promises";
import { expect, it } from "vitest";
import type { ByteSocket } from "../net/byte-socket.ts";
import { parseIp } from "../net/ip.ts";
import { ACCEPT_RETRY_MS, acceptBytes } from "./accept-bytes.ts";
import { fdLoop } from "./fd-loop.ts";
import { addressOf, call, callNumber, closeFd } from "./libc.ts";
import { listenTcp, localPort } from "./sockets.ts";

it("without descriptors left, a listener waits, without haste, until there are some", async () => {
  const fd = listenTcp(undefined, { address: { ip: parseIp("127.0.0.1")!, port: 0 } });
  const peer = net.connect(localPort(fd), "127.0.0.1");
  await once(peer, "connect");
  const limit = descriptorLimit();
  const accepted = Promise.withResolvers<ByteSocket>();
  // The loop needs some of its own.
  fdLoop();
  // The number of the next descriptor: with that as the limit there is none.
  const next = call("eventfd", "", 0, 0);
  closeFd(next);
  limit.set(next);
  const listener = acceptBytes(fd, accepted.resolve);
  try {
    const before = performance.eventLoopUtilization();
    await setTimeout(ACCEPT_RETRY_MS * 2.5);
    expect(performance.eventLoopUtilization(before).utilization).toBeLessThan(0.5);
  } finally {
    limit.restore();
  }
  (await accepted.promise).destroy();
  peer.destroy();
  listener.close();
});

/** RLIMIT_NOFILE of this process. */
function descriptorLimit() {
  const number = { x64: 302, arm64: 261 }[process.arch as "x64" | "arm64"];
  const prlimit = (set: bigint | number, old: bigint | number) =>
    callNumber(number, "prlimit64", 0, 7, set, old);
  const initial = Buffer.allocUnsafeSlow(16);
  prlimit(0, addressOf(initial));
  return {
    set: (soft: number) => {
      const lowered = Buffer.from(initial);
      lowered.writeBigUInt64LE(BigInt(soft));
      prlimit(addressOf(lowered), 0);
    },
    restore: () => void prlimit(addressOf(initial), 0),
  };
}
