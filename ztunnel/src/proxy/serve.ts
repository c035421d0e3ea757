// Serving: the part of an inbound connection that all its ways in share — policy, the connection to the
// application, the relay, and the access line of the destination side.

import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import type { ByteCounters, RelayEnd } from "@ambit/common/hbone/relay.ts";
import type { ConnectionSubject } from "@ambit/common/policy/match.ts";
import { ipFamily, loopback } from "@ambit/common/net/ip.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { type Identity, spiffeId } from "@ambit/common/tls/identity.ts";
import type { Service } from "../state/service.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import { ConnectionTelemetry, type PathKind } from "../telemetry/connection-telemetry.ts";
import { type Party, partyOfWorkload } from "../telemetry/party.ts";
import { admit } from "./admit.ts";
import { authorize } from "./authorize.ts";
import { Connection } from "./connection.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { dial } from "./dial.ts";
import { asProxyError, ProxyError } from "./proxy-error.ts";

/** An inbound connection whose target is settled. */
export interface InboundOrder {
  /** What the peer calls it too, when it said so. */
  readonly id: string;
  readonly context: ProxyContext;
  readonly pod: Pod;
  readonly workload: Workload;
  readonly path: PathKind;
  /** What it came through, when that is a tunnel. */
  readonly tunnel?: object;
  readonly source: SocketAddress;
  readonly sourceParty: Party;
  /** From the peer's certificate; absent on plaintext. */
  readonly sourceIdentity?: Identity;
  /** What the connection came in on; the access line's dst.addr. */
  readonly destination: SocketAddress;
  readonly hboneTarget?: string;
  /** The application. */
  readonly target: SocketAddress;
  /**
   * It listens on loopback, so that nobody reaches it but through us: there it is called from loopback,
   * and policy is still asked about the pod's address (ztunnel §1.5).
   */
  readonly onLoopback?: boolean;
  readonly service?: Service;
  readonly counters?: ByteCounters;
  /** The source's side, where that is ours too: when it is cut, so is this, however far it has come. */
  readonly outbound?: Connection;
}

/** Starts the relay once the application is connected; the promise settles with the connection. */
export type StartRelay = (
  app: ByteSocket,
  counters: ByteCounters,
  connection: Connection,
) => Promise<RelayEnd>;

/**
 * Authorizes, connects, relays. Resolves when the connection is over; rejects with the ProxyError that
 * prevented it, after its access line is written.
 */
export async function serve(order: InboundOrder, start: StartRelay): Promise<void> {
  const { context, pod, workload, target } = order;
  const connection = new Connection(order.id);
  connection.tunnel = order.tunnel;
  const telemetry = new ConnectionTelemetry(context.telemetry, factsOf(order), order.counters);
  const subject: ConnectionSubject = {
    sourceIp: order.source.ip,
    destinationIp: target.ip,
    destinationPort: target.port,
    ...(order.sourceIdentity && { sourceIdentity: order.sourceIdentity }),
  };
  const tracked = context.connections.track({
    connection,
    direction: "inbound",
    path: order.path,
    workload,
    source: order.source,
    originalDestination: order.destination,
    actualDestination: target,
    counters: telemetry.counters,
    subject,
  });
  const hold = pod.drain.hold("inbound connection");
  const ending = connection.endWith(pod.drain);
  const { outbound } = order;
  outbound?.onAbort(() => connection.abort(outbound.error!));
  try {
    using _seat = admit(pod, "inbound", telemetry.counters);
    authorize(context, workload, subject);
    const dialed = dial(context, pod, { ...whereToDial(order), timeoutCode: "CONNECT_TIMEOUT" });
    const app = await connection.unlessAborted(dialed, (late) => late.destroy());
    connection.onAbort(() => app.reset());
    const end = await start(app, telemetry.counters, connection);
    const relayFailure =
      end.error === undefined ? undefined : new ProxyError("RELAY_FAILED", end.error);
    telemetry.close(connection.error ?? relayFailure);
  } catch (error) {
    const failure = connection.error ?? asProxyError(error);
    telemetry.close(failure);
    throw failure;
  } finally {
    ending.leave();
    tracked.leave();
    hold.release();
  }
}

function whereToDial({ target, onLoopback, source }: InboundOrder) {
  if (!onLoopback) return { destination: target, onBehalfOf: source.ip };
  return { destination: { ip: loopback(ipFamily(target.ip)), port: target.port } };
}

function factsOf(order: InboundOrder): ConstructorParameters<typeof ConnectionTelemetry>[1] {
  const { workload, service, sourceIdentity } = order;
  const own = spiffeId(workloadIdentity(workload));
  return {
    id: order.id,
    direction: "inbound",
    path: order.path,
    sourceAddress: order.source,
    destinationAddress: order.destination,
    source: order.sourceParty,
    destination: partyOfWorkload(workload),
    destinationPrincipal: own,
    ...(order.hboneTarget !== undefined && { hboneTarget: order.hboneTarget }),
    ...(service && {
      service: { hostname: service.hostname, namespace: service.namespace, name: service.name },
    }),
    ...(sourceIdentity && { sourceIdentity: spiffeId(sourceIdentity), destinationIdentity: own }),
  };
}
