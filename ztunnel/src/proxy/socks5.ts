// SOCKS5 on loopback inside a pod: an application says where it wants to go instead of being redirected.
// From there on its connection is an outbound one like any other; it is answered when that is open.

import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { type IpFamily, ipFamily, loopback } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { newTraceparent, traceIdOf } from "@ambit/common/hbone/traceparent.ts";
import type { ByteListener } from "@ambit/common/sys/accept-bytes.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import { SOCKS_PORT } from "../config.ts";
import { lookupSettings, resolveLocally } from "../dns/resolve.ts";
import type { Workload } from "../state/workload.ts";
import { logEarlyFailure } from "../telemetry/connection-telemetry.ts";
import { acceptConnections } from "./accept.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { identify } from "./identify.ts";
import { carryOutbound } from "./outbound.ts";
import { asProxyError, drainError, ProxyError } from "./proxy-error.ts";
import {
  encodeReply,
  METHOD_ANSWER,
  NO_METHOD_ANSWER,
  parseGreeting,
  parseSocksRequest,
  SOCKS_BYTES_MAX,
  SocksReply,
  type SocksTarget,
} from "./socks5-codec.ts";

/** An application that has connected says at once where it wants to go. */
export const NEGOTIATION_TIMEOUT_MS = 5_000;

/** Opens the pod's SOCKS port, which only the pod itself reaches. Throws SystemError. */
export function listenForSocks(context: ProxyContext, pod: Pod): ByteListener {
  const { packetMark, keepalive, portReuse } = context.config;
  const fd = listenTcp(pod.netnsFd, {
    address: { ip: loopback(4), port: SOCKS_PORT },
    ...(packetMark !== undefined && { mark: packetMark }),
    ...(keepalive !== undefined && { keepalive }),
    reusePort: portReuse,
  });
  return acceptConnections(fd, (client) => void handleSocks(context, pod, client));
}

/** Handles one connection to the pod's SOCKS port; `client` comes paused. Never rejects. */
export async function handleSocks(
  context: ProxyContext,
  pod: Pod,
  client: ByteSocket,
): Promise<void> {
  using _ = pod.drain.hold("SOCKS connection");
  const [source, local] = [client.remote, client.local];
  if (source === undefined || local === undefined) return client.destroy();
  context.sockets.source++;
  try {
    const target = await negotiate(context, pod, client);
    const destination = await find(context, pod, client, target);
    let open = false;
    const opened = () => {
      open = true;
      client.write(encodeReply(SocksReply.succeeded));
    };
    await carryOutbound({ context, pod, client, accepted: { source, destination }, opened });
    if (!open) client.write(encodeReply(SocksReply.generalFailure));
  } catch (error) {
    const id = traceIdOf(newTraceparent());
    const failure = { id, source, destination: local, direction: "outbound" } as const;
    logEarlyFailure(context.telemetry, { ...failure, error: asProxyError(error) });
  } finally {
    context.sockets.source--;
    client.endAndClose();
  }
}

/** Greeting and request. What breaks the protocol is answered, as far as that has an answer. */
function negotiate(
  { clock }: ProxyContext,
  { drain }: Pod,
  client: ByteSocket,
): Promise<SocksTarget> {
  return new Promise((resolve, reject) => {
    const talk = new Negotiation(client);
    const settle = (action: () => void) => {
      timer.cancel();
      drain.forced.removeEventListener("abort", onForced);
      client.pause();
      action();
    };
    const fail = (error: ProxyError) => settle(() => reject(error));
    const onForced = () => fail(drainError(drain.mode));
    const timer = clock.after(NEGOTIATION_TIMEOUT_MS, () =>
      fail(refusal(`no request within ${NEGOTIATION_TIMEOUT_MS / 1000} s`)),
    );
    drain.forced.addEventListener("abort", onForced);
    client.handler = {
      onBytes: (bytes) => {
        try {
          const target = talk.take(bytes);
          if (target !== undefined) settle(() => resolve(target));
        } catch (error) {
          fail(asProxyError(error));
        }
      },
      onEnd: () => fail(refusal("the client left before it said where it wants to go")),
      onWritable: () => undefined,
      onClose: () => fail(refusal("the client left before it said where it wants to go")),
    };
    client.resume();
    if (drain.forced.aborted) onForced();
  });
}

class Negotiation {
  readonly #client: ByteSocket;
  #greeted = false;
  #received: Buffer = Buffer.alloc(0);

  constructor(client: ByteSocket) {
    this.#client = client;
  }

  /** The target, once it is said. Throws SOCKS_FAILED. */
  take(bytes: Buffer): SocksTarget | undefined {
    if (this.#received.length + bytes.length > SOCKS_BYTES_MAX) throw refusal("it talks too much");
    this.#received = Buffer.concat([this.#received, bytes]);
    if (!this.#greeted && !this.#greet()) return undefined;
    const request = parseSocksRequest(this.#received);
    if (request.kind === "incomplete") return undefined;
    if (request.kind === "malformed") throw this.#refuse(request);
    // Our reply comes first: who does not wait for it does not speak SOCKS.
    if (request.length < this.#received.length) throw refusal("it talks too much");
    return request.value;
  }

  #greet(): boolean {
    const greeting = parseGreeting(this.#received);
    if (greeting.kind === "incomplete") return false;
    if (greeting.kind === "malformed") throw refusal(greeting.reason);
    if (greeting.value === "no method") {
      this.#client.write(NO_METHOD_ANSWER);
      throw refusal("it wants to authenticate, which is not supported");
    }
    this.#client.write(METHOD_ANSWER);
    this.#greeted = true;
    this.#received = this.#received.subarray(greeting.length);
    return true;
  }

  #refuse({ reason, reply }: { readonly reason: string; readonly reply?: SocksReply }): ProxyError {
    if (reply !== undefined) this.#client.write(encodeReply(reply));
    return refusal(reason);
  }
}

/** What the mesh says of a hostname, else what DNS does, as far as it is of use for this client. */
async function find(
  context: ProxyContext,
  pod: Pod,
  client: ByteSocket,
  { host, port }: SocksTarget,
): Promise<SocketAddress> {
  if ("ip" in host) return { ip: host.ip, port };
  try {
    const workload = await identify(context, pod);
    const family = ipFamily(client.local!.ip);
    const ip =
      inMesh(context, workload, host.hostname, family) ??
      (await context.names.find(host.hostname, family));
    return { ip, port };
  } catch (error) {
    client.write(encodeReply(SocksReply.hostUnreachable));
    throw error;
  }
}

/** Of the client's family if it can be. */
function inMesh(
  { state, config, random }: ProxyContext,
  client: Workload,
  name: string,
  family: IpFamily,
) {
  const settings = lookupSettings(config, client, random);
  for (const wanted of [family, family === 4 ? 6 : 4] as const) {
    const [ip] = resolveLocally(state, { ...settings, name, family: wanted })?.addresses ?? [];
    if (ip !== undefined) return ip;
  }
  return undefined;
}

function refusal(why: string): ProxyError {
  return new ProxyError("SOCKS_FAILED", `no SOCKS connection: ${why}`);
}
