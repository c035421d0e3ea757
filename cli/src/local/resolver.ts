// The name server of one node: answers for the cluster domain from the store, and says of every other
// name that it does not exist, since the mesh has no way out. Owns its sockets.

import dgram from "node:dgram";
import net from "node:net";
import packet from "dns-packet";
import type { Ip } from "@ambit/common/net/ip.ts";
import { listenTcp, udpSocket } from "@ambit/common/sys/sockets.ts";
import type { NameAnswer } from "./names.ts";

export type Lookup = (name: string, family: 4 | 6 | undefined) => NameAnswer;

const DNS_PORT = 53;
/** Short: a pod that restarts under another address should not be asked for at the old one. */
const TTL_SECONDS = 5;
const TCP_IDLE_TIMEOUT_MS = 5_000;
const TCP_CLIENTS_MAX = 64;
/** Without EDNS a UDP answer may not be longer (RFC 1035 §4.2.1). */
const UDP_BYTES_MAX = 512;
const NXDOMAIN = 3;

export interface Resolver {
  close(): void;
}

/** Serves UDP and TCP port 53 of `ip` inside a namespace; throws when the port is taken. */
export function startResolver(netnsFd: number, ip: Ip, lookup: Lookup): Resolver {
  const address = { ip, port: DNS_PORT };
  const udp = dgram.createSocket("udp4");
  udp.on("error", () => undefined);
  udp.on("message", (query, from) => {
    const answer = answerQuery(query, lookup, UDP_BYTES_MAX);
    if (answer) udp.send(answer, from.port, from.address, () => undefined);
  });
  udp.bind({ fd: udpSocket(netnsFd, { address }) });
  udp.unref();
  const tcp = net.createServer((socket) => serveTcp(socket, lookup));
  tcp.maxConnections = TCP_CLIENTS_MAX;
  tcp.listen({ fd: listenTcp(netnsFd, { address }) });
  tcp.unref();
  return {
    close: () => {
      udp.close();
      tcp.close();
    },
  };
}

/** Messages behind a two-byte length (RFC 1035 §4.2.2); a client may send several. */
function serveTcp(socket: net.Socket, lookup: Lookup): void {
  let pending: Buffer = Buffer.alloc(0);
  socket.unref();
  socket.on("error", () => undefined);
  socket.setTimeout(TCP_IDLE_TIMEOUT_MS, () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE()) {
      const end = 2 + pending.readUInt16BE();
      const answer = answerQuery(pending.subarray(2, end), lookup, 0xffff);
      pending = pending.subarray(end);
      if (answer === undefined) return void socket.destroy();
      const length = Buffer.alloc(2);
      length.writeUInt16BE(answer.length);
      socket.write(Buffer.concat([length, answer]));
    }
  });
}

/** The answer to a query; undefined for what is no query at all. */
export function answerQuery(bytes: Buffer, lookup: Lookup, bytesMax: number): Buffer | undefined {
  let query: packet.Packet;
  try {
    query = packet.decode(bytes);
  } catch {
    return undefined;
  }
  const [question] = query.questions ?? [];
  if (query.type !== "query" || question === undefined) return undefined;
  const { rcode, answers } = answersTo(question, lookup);
  const flags = packet.RECURSION_DESIRED & (query.flags ?? 0);
  const base = {
    type: "response" as const,
    id: query.id ?? 0,
    flags: flags | packet.AUTHORITATIVE_ANSWER | packet.RECURSION_AVAILABLE | rcode,
    questions: [question],
  };
  const whole = packet.encode({ ...base, answers });
  if (whole.length <= bytesMax) return whole;
  return packet.encode({ ...base, flags: base.flags | packet.TRUNCATED_RESPONSE });
}

function answersTo(
  { name, type }: packet.Question,
  lookup: Lookup,
): { rcode: number; answers: packet.Answer[] } {
  const family = type === "A" ? 4 : type === "AAAA" ? 6 : undefined;
  const found = lookup(name.toLowerCase().replace(/\.$/, ""), family);
  if (found.kind === "unknown") return { rcode: NXDOMAIN, answers: [] };
  if (found.kind === "alias") {
    return { rcode: 0, answers: [{ type: "CNAME", name, ttl: TTL_SECONDS, data: found.target }] };
  }
  const record = family === 4 ? ("A" as const) : ("AAAA" as const);
  const ips = family === undefined ? [] : found.ips;
  return {
    rcode: 0,
    answers: ips.map((data) => ({ type: record, name, ttl: TTL_SECONDS, data })),
  };
}
