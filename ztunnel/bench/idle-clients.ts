// `idle-clients.ts HOST PORT COUNT`: opens connections, sends one request on each, says "ready" when
// all were answered, and holds them until it is killed.

import { once } from "node:events";
import net from "node:net";

const [host, port, count] = process.argv.slice(2);
/** Opened at a time: a thousand at once would overflow the listeners' queues. */
const BURST = 50;

async function open(): Promise<net.Socket> {
  const socket = net.connect(Number(port), host);
  socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  await once(socket, "data");
  return socket;
}

const held: net.Socket[] = [];
while (held.length < Number(count)) {
  const burst = Math.min(BURST, Number(count) - held.length);
  held.push(...(await Promise.all(Array.from({ length: burst }, open))));
}
process.stdout.write("ready\n");
