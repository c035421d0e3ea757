// The life of an outbound connection, from accept to access line. Each step is a file of its own:
//   accept → identify → resolve (state/outbound-route) → locate → authorize (at the far side; here for `local`)
//   → tunnel or dial → relay → one access line.

import { type ByteCounters, relaySockets, type RelayEnd } from "@ambit/common/hbone/relay.ts";
import { newTraceparent, traceIdOf } from "@ambit/common/hbone/traceparent.ts";
import { ErrorCode } from "@ambit/common/http2/protocol.ts";
import { isCaptureProbe } from "@ambit/common/net/capture-probe.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { readWaiting } from "@ambit/common/sys/read-waiting.ts";
import { assert } from "@ambit/common/process/assert.ts";
import { resolveOutbound, type SettledRoute } from "../state/outbound-route.ts";
import type { Workload } from "../state/workload.ts";
import {
  ConnectionTelemetry,
  logEarlyFailure,
  type PathKind,
} from "../telemetry/connection-telemetry.ts";
import { type Accepted, describeRedirected, refuseSelfCall } from "./accept.ts";
import { admit } from "./admit.ts";
import { answerCaptureProbe } from "./capture-probe.ts";
import { Connection, type Hop } from "./connection.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { dial } from "./dial.ts";
import { type DoubleTunnel, openDoubleTunnel } from "./double-tunnel.ts";
import { identify, knownWorkload } from "./identify.ts";
import { relayLocally } from "./local-path.ts";
import { locate } from "./locate.ts";
import { decideOnDemand } from "./on-demand.ts";
import { factsAcross, outboundFacts } from "./outbound-facts.ts";
import { asProxyError, ProxyError } from "./proxy-error.ts";
import { sameNodePath } from "./same-node.ts";
import { openTunnel } from "./tunnel.ts";

/** Handles one redirected connection of `pod`; `client` comes paused. Never rejects. */
export async function handleOutbound(
  context: ProxyContext,
  pod: Pod,
  client: ByteSocket,
): Promise<void> {
  using hold = pod.drain.hold("outbound connection");
  const accepted = describeRedirected(client);
  if (accepted === undefined) return client.destroy();
  if (isCaptureProbe(accepted.destination)) return answerCaptureProbe(client, pod);
  context.sockets.source++;
  try {
    await carryOutbound({ context, pod, client, accepted });
  } finally {
    context.sockets.source--;
    client.destroy();
    hold.release();
  }
}

/** A connection that wants to go out, whoever told us where. */
export interface Departure {
  readonly context: ProxyContext;
  readonly pod: Pod;
  readonly client: ByteSocket;
  readonly accepted: Accepted;
  /** Called when the way to the destination is open, before any byte is relayed. */
  readonly opened?: () => void;
}

/** Carries it to its end. Never rejects, and leaves `client` to the caller. */
export async function carryOutbound(departure: Departure): Promise<void> {
  const { context, pod, accepted } = departure;
  const traceparent = newTraceparent();
  try {
    using seat = admit(pod, "outbound", { sent: 0, received: 0 });
    refuseSelfCall(pod, accepted, "outbound");
    const source = knownWorkload(context, pod) ?? (await identify(context, pod));
    const { destination } = accepted;
    const query = { source, destination, random: context.random };
    const { state, demand } = context;
    const resolved =
      demand === undefined
        ? resolveOutbound(state, query)
        : await decideOnDemand(demand, (missed) => resolveOutbound(state, { ...query, missed }));
    const route = resolved.kind === "named" ? await locate(context, source, resolved) : resolved;
    await carry({ ...departure, source, route, traceparent, counters: seat.counters });
  } catch (error) {
    logEarlyFailure(context.telemetry, {
      ...accepted,
      id: traceIdOf(traceparent),
      direction: "outbound",
      error: asProxyError(error),
    });
  }
}

interface Journey extends Departure {
  readonly source: Workload;
  readonly route: SettledRoute;
  readonly traceparent: string;
  readonly counters: ByteCounters;
}

/** Opens telemetry, moves the bytes, and writes the access line whatever happens. */
async function carry(journey: Journey): Promise<void> {
  const { context, pod, client, accepted, source, route, counters } = journey;
  const connection = new Connection(traceIdOf(journey.traceparent));
  const localPod = localDestination(journey);
  const path = pathOf(route, localPod);
  const facts = outboundFacts({ id: connection.id, accepted, source, route, path });
  const tracked = context.connections.track({
    connection,
    direction: "outbound",
    path,
    workload: source,
    source: accepted.source,
    originalDestination: accepted.destination,
    actualDestination: facts.destinationAddress,
    counters,
    ...hopOf(route),
  });
  connection.onAbort(() => client.reset());
  const ending = connection.endWith(pod.drain);
  let telemetry: ConnectionTelemetry | undefined;
  try {
    const across = await openAcross(journey, connection);
    const told = across === undefined ? facts : factsAcross(facts, across);
    telemetry = new ConnectionTelemetry(context.telemetry, told, counters);
    const end =
      localPod !== undefined && route.kind === "hbone"
        ? await relayLocally({
            ...journey,
            pod: localPod,
            route,
            connection,
            telemetry,
            onServed: () => offerDirectly(journey),
          })
        : await relayOut(journey, connection, counters, across);
    const failure =
      connection.error ??
      (end.error === undefined ? undefined : new ProxyError("RELAY_FAILED", end.error));
    telemetry.close(failure);
  } catch (error) {
    telemetry ??= new ConnectionTelemetry(context.telemetry, facts, counters);
    telemetry.close(connection.error ?? asProxyError(error));
  } finally {
    ending.leave();
    tracked.leave();
  }
}

function pathOf(route: SettledRoute, localPod: Pod | undefined): PathKind {
  if (localPod !== undefined) return "local";
  return route.kind === "hbone" || route.kind === "double-hbone" ? "hbone" : "tcp";
}

/** The workload that the tunnel, or the outer one of two, ends at. */
function hopOf(route: SettledRoute): { hop?: Hop } {
  const tunnel = route.kind === "double-hbone" ? route.outer : route;
  if (tunnel.kind !== "hbone") return {};
  const { destination, nextHop, allowedIdentities } = tunnel;
  return { hop: { workload: destination, ip: nextHop.ip, allowedIdentities } };
}

/** Both tunnels of a connection to another network, before it counts as opened (ztunnel §7.1). */
function openAcross(
  { context, pod, source, accepted, route, traceparent }: Journey,
  connection: Connection,
): Promise<DoubleTunnel> | undefined {
  if (route.kind !== "double-hbone") return undefined;
  const client = accepted.source;
  const opening = openDoubleTunnel({ context, pod, source, client, route, traceparent });
  return connection.unlessAborted(opening, (late) => late.close());
}

/** The destination's pod when same-node traffic may stay inside this process (design: `local`). */
function localDestination({ context, source, route }: Journey): Pod | undefined {
  if (route.kind !== "hbone" || route.viaWaypoint) return undefined;
  const path = sameNodePath(context.config.sameNode, source, route.destination);
  return path === "hbone" ? undefined : context.localPod(route.destination);
}

/** Connections like this one may be made without us from now on, where all sides want that. */
function offerDirectly({ context, pod, accepted, source, route }: Journey): void {
  if (route.kind !== "hbone") return;
  if (sameNodePath(context.config.sameNode, source, route.destination) !== "direct") return;
  context.direct.offer(context, source, pod, accepted.destination);
}

/** Counts what leaves for the far side before there is a relay. */
function counted(bytes: Buffer | undefined, counters: ByteCounters): Buffer | undefined {
  counters.sent += bytes?.length ?? 0;
  return bytes;
}

async function relayOut(
  journey: Journey,
  connection: Connection,
  counters: ByteCounters,
  across: DoubleTunnel | undefined,
): Promise<RelayEnd> {
  const { context, pod, client, accepted, source, route, opened } = journey;
  switch (route.kind) {
    case "hbone": {
      const order = {
        source,
        client: accepted.source,
        route,
        traceparent: journey.traceparent,
        // Who waits to be told that the way is open has said nothing for its far end yet.
        ...(opened === undefined && { early: () => counted(readWaiting(client), counters) }),
      };
      const stream = await connection.unlessAborted(openTunnel(pod, order), (late) =>
        late.reset(ErrorCode.CANCEL),
      );
      connection.tunnel = stream.tunnel;
      connection.onAbort(() => stream.reset(ErrorCode.CANCEL));
      opened?.();
      return stream.relay(client, counters);
    }
    case "tcp":
    case "passthrough": {
      const destination = route.kind === "tcp" ? route.target : accepted.destination;
      const dialed = dial(context, pod, { destination, timeoutCode: "CONNECT_TIMEOUT" });
      const upstream = await connection.unlessAborted(dialed, (late) => late.destroy());
      connection.onAbort(() => upstream.reset());
      opened?.();
      return relaySockets(client, upstream, counters);
    }
    case "double-hbone":
      assert(across !== undefined, "both tunnels are open");
      connection.tunnel = across.stream.tunnel;
      connection.onAbort(() => across.close());
      opened?.();
      return across.stream.relay(client, counters);
    case "refused":
      throw new ProxyError(route.code, route.reason);
  }
}
