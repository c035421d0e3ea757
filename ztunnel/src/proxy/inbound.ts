// The life of an inbound HBONE connection: TLS with the pod's identity, then for each CONNECT
//   validate the authority (state/inbound-target) → name the source → serve (authorize, dial, relay).

import { type Authority, parseAuthority } from "@ambit/common/hbone/authority.ts";
import { parseForwardedHost } from "@ambit/common/hbone/forwarded.ts";
import { type ConnectRequest, HboneServerConnection } from "@ambit/common/hbone/server.ts";
import { newTraceparent, traceIdOf, traceparentFrom } from "@ambit/common/hbone/traceparent.ts";
import { ErrorCode } from "@ambit/common/http2/protocol.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { encodeProxyHeader, TLV_IDENTITY } from "@ambit/common/net/proxy-protocol.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { type Identity, spiffeId } from "@ambit/common/tls/identity.ts";
import { secureServer, type SecureResult } from "@ambit/common/tls/secure.ts";
import { inboundService } from "../state/inbound-service.ts";
import { resolveInboundTarget } from "../state/inbound-target.ts";
import type { Service } from "../state/service.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import { logEarlyFailure } from "../telemetry/connection-telemetry.ts";
import { baggageOf } from "../telemetry/party.ts";
import { type Accepted, describeTunnel } from "./accept.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { identify } from "./identify.ts";
import { seekSource, sourceParty } from "./inbound-source.ts";
import { decideOnDemand } from "./on-demand.ts";
import { asProxyError, ProxyError } from "./proxy-error.ts";
import { guard, handshakeError, secureOptions } from "./revocation.ts";
import { serve } from "./serve.ts";

type Secured = Extract<SecureResult, { ok: true }>;

interface Tunnel {
  readonly context: ProxyContext;
  readonly pod: Pod;
  readonly accepted: Accepted;
  readonly peer: Identity;
}

/** Serves one HBONE connection of a peer until it ends. Never rejects. */
export async function handleInbound(
  context: ProxyContext,
  pod: Pod,
  raw: ByteSocket,
): Promise<void> {
  // From the first byte: a handshake that has begun is waited for, too.
  using hold = pod.drain.hold("tunnel");
  const accepted = describeTunnel(raw);
  if (accepted === undefined) return raw.destroy();
  const cut = () => raw.destroy();
  pod.drain.forced.addEventListener("abort", cut);
  context.sockets.destination++;
  try {
    const workload = await identify(context, pod);
    const certificate = await context.certificates.get(spiffeId(workloadIdentity(workload)));
    const secured = await secureServer(raw, certificate, secureOptions(context));
    if (!secured.ok) throw handshakeError(context.revocation, "destination", secured);
    pod.drain.forced.removeEventListener("abort", cut);
    await serveTunnel(secured, { context, pod, accepted, peer: secured.peer });
  } catch (error) {
    raw.destroy();
    logEarlyFailure(context.telemetry, {
      ...accepted,
      id: traceIdOf(newTraceparent()),
      direction: "inbound",
      error: asProxyError(error),
    });
  } finally {
    context.sockets.destination--;
    pod.drain.forced.removeEventListener("abort", cut);
    hold.release();
  }
}

/** Resolves when the connection is over; it drains and is cut with the pod. */
function serveTunnel(secured: Secured, tunnel: Tunnel): Promise<void> {
  const { context, pod } = tunnel;
  return new Promise((resolve) => {
    const connection = new HboneServerConnection(secured.socket, {
      settings: context.config.hbone,
      clock: context.clock,
      onConnect: (request) => void handleConnect(tunnel, request),
      onClose: () => {
        pod.drain.started.removeEventListener("abort", onDrain);
        pod.drain.forced.removeEventListener("abort", onForce);
        context.revocation?.forget(connection.tunnel);
        resolve();
      },
    });
    guard(context.revocation, "destination", secured, connection.tunnel, (error) => {
      connection.destroy(error.message);
    });
    const onDrain = () => connection.drain();
    const onForce = () => connection.destroy();
    pod.drain.started.addEventListener("abort", onDrain);
    pod.drain.forced.addEventListener("abort", onForce);
    if (pod.drain.started.aborted) onDrain();
    if (pod.drain.forced.aborted) onForce();
  });
}

/** One CONNECT. Every failure becomes a status for the peer and a line for us. Never rejects. */
async function handleConnect(tunnel: Tunnel, request: ConnectRequest): Promise<void> {
  let answered = false;
  const id = traceIdOf(traceparentFrom(request.headers.get("traceparent")));
  try {
    const { context, pod, accepted, peer } = tunnel;
    const workload = await identify(context, pod);
    const target = await validate(tunnel, workload, request);
    const response = responseHeaders(context, workload);
    const { ip } = accepted.source;
    if (context.demand !== undefined) await seekSource(context, workload, ip);
    const { headers } = request;
    const source = sourceParty(context, workload, { ip, identity: peer, headers });
    await serve(
      {
        id,
        context,
        pod,
        workload,
        path: "hbone",
        source: accepted.source,
        sourceParty: source,
        sourceIdentity: peer,
        destination: accepted.destination,
        tunnel: request.tunnel,
        hboneTarget: request.authority!,
        target: { ip: accepted.destination.ip, port: target.port },
        ...(target.service && { service: target.service }),
        onLoopback: target.proxied !== undefined && context.config.localhostAppTunnel,
      },
      (app, counters, connection) => {
        if (request.aborted)
          throw new ProxyError(
            "RELAY_FAILED",
            "the client gave up before the application answered",
          );
        answered = true;
        const stream = request.accept(response);
        connection.onAbort(() => stream.reset(ErrorCode.CANCEL));
        if (target.proxied !== undefined) announce(app, tunnel, target.proxied);
        return stream.relay(app, counters);
      },
    );
  } catch (error) {
    const failure = asProxyError(error);
    if (!answered && !request.aborted) request.reject(failure.httpStatus);
    if (EARLY_CODES.has(failure.code)) {
      const { context, accepted } = tunnel;
      logEarlyFailure(context.telemetry, { ...accepted, id, direction: "inbound", error: failure });
    }
  }
}

/** Failures before policy was asked have no parties to log: a short line (ztunnel §1.4). */
const EARLY_CODES: ReadonlySet<string> = new Set([
  "NOT_CONNECT",
  "BAD_AUTHORITY",
  "IP_MISMATCH",
  "UNKNOWN_SOURCE",
  "UNKNOWN_DESTINATION",
  "XDS_UNANSWERED",
  "NO_PORT",
  "SELF_CALL",
]);

/** What a CONNECT asks for, when it may. */
async function validate(
  { context, pod, accepted }: Tunnel,
  workload: Workload,
  request: ConnectRequest,
): Promise<{ port: number; service?: Service; proxied?: SocketAddress }> {
  const { state, demand } = context;
  const authority = askedFor(request);
  const query = {
    authority,
    localIp: accepted.destination.ip,
    workload,
    ownPorts: pod.ownPorts,
  };
  const target =
    demand === undefined
      ? resolveInboundTarget(state, query)
      : await decideOnDemand(demand, (missed) => resolveInboundTarget(state, { ...query, missed }));
  if (!target.ok) throw new ProxyError(target.code, target.reason);
  const named = parseForwardedHost(request.headers.get("forwarded") ?? "");
  const { port, proxied } = target;
  const service = target.service?.service ?? inboundService(state, workload, port, named);
  return { port, ...(service && { service }), ...(proxied && { proxied }) };
}

function askedFor(request: ConnectRequest): Authority {
  if (request.method !== "CONNECT")
    throw new ProxyError("NOT_CONNECT", `method ${request.method} is not CONNECT`);
  const authority = request.authority === undefined ? undefined : parseAuthority(request.authority);
  if (authority === undefined)
    throw new ProxyError("BAD_AUTHORITY", `invalid authority "${request.authority ?? ""}"`);
  return authority;
}

/** The application is told who calls, and whom, before the caller's own bytes (ztunnel §1.6). */
function announce(app: ByteSocket, { accepted, peer }: Tunnel, destination: SocketAddress): void {
  const tlvs = new Map([[TLV_IDENTITY, spiffeId(peer)]]);
  app.write(encodeProxyHeader(accepted.source, destination, tlvs));
}

function responseHeaders({ config }: ProxyContext, workload: Workload): Record<string, string> {
  return config.responseBaggage ? { baggage: baggageOf(workload) } : {};
}
