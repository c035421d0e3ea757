// The life of an outbound connection, from accept to access line. Each step is a file of its own:
//   accept → identify → resolve (state/outbound-route) → authorize (at the far side; here for `local`)
//   → tunnel or dial → relay → one access line.

import { relaySockets, type RelayEnd } from "@ambit/common/hbone/relay.ts";
import { newTraceparent, traceIdOf } from "@ambit/common/hbone/traceparent.ts";
import { ErrorCode } from "@ambit/common/http2/protocol.ts";
import { isCaptureProbe } from "@ambit/common/net/capture-probe.ts";
import { ipFamily } from "@ambit/common/net/ip.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import { type HboneRoute, resolveOutbound, type OutboundRoute } from "../state/outbound-route.ts";
import type { Service } from "../state/service.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import {
  type ConnectionFacts,
  ConnectionTelemetry,
  logEarlyFailure,
  type PathKind,
} from "../telemetry/connection-telemetry.ts";
import { partyOfWorkload, UNKNOWN_PARTY } from "../telemetry/party.ts";
import { type Accepted, describeRedirected, refuseSelfCall } from "./accept.ts";
import { answerCaptureProbe } from "./capture-probe.ts";
import { Connection, type Hop } from "./connection.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { dial, resolveHostname } from "./dial.ts";
import { identify, knownWorkload } from "./identify.ts";
import { relayLocally } from "./local-path.ts";
import { asProxyError, ProxyError } from "./proxy-error.ts";
import { openTunnel } from "./tunnel.ts";

/** Handles one redirected connection of `pod`; `client` comes paused. Never rejects. */
export async function handleOutbound(
  context: ProxyContext,
  pod: Pod,
  client: ByteSocket,
): Promise<void> {
  using hold = pod.drain.hold();
  const accepted = describeRedirected(client);
  if (accepted === undefined) return client.destroy();
  if (isCaptureProbe(accepted.destination)) return answerCaptureProbe(client, pod);
  const traceparent = newTraceparent();
  try {
    refuseSelfCall(accepted.destination, "outbound");
    const source = knownWorkload(context, pod) ?? (await identify(context, pod));
    const route = resolveOutbound(context.state, {
      source,
      destination: accepted.destination,
      random: context.random,
    });
    await carry({ context, pod, client, accepted, source, route, traceparent });
  } catch (error) {
    logEarlyFailure(context.telemetry, {
      ...accepted,
      id: traceIdOf(traceparent),
      direction: "outbound",
      error: asProxyError(error),
    });
  } finally {
    client.destroy();
    hold.release();
  }
}

interface Journey {
  readonly context: ProxyContext;
  readonly pod: Pod;
  readonly client: ByteSocket;
  readonly accepted: Accepted;
  readonly source: Workload;
  readonly route: OutboundRoute;
  readonly traceparent: string;
}

/** Opens telemetry, moves the bytes, and writes the access line whatever happens. */
async function carry(journey: Journey): Promise<void> {
  const { context, pod, client, accepted, source, route } = journey;
  const connection = new Connection(traceIdOf(journey.traceparent));
  const localPod = localDestination(journey);
  const path: PathKind =
    localPod !== undefined ? "local" : route.kind === "hbone" ? "hbone" : "tcp";
  const facts = outboundFacts(journey, connection.id, path);
  const telemetry = new ConnectionTelemetry(context.telemetry, facts);
  const untrack = context.connections.track({
    connection,
    direction: "outbound",
    path,
    workload: source,
    source: accepted.source,
    originalDestination: accepted.destination,
    actualDestination: facts.destinationAddress,
    counters: telemetry.counters,
    ...(route.kind === "hbone" && { hop: hopOf(route) }),
  });
  connection.onAbort(() => client.destroy());
  const stopEnding = connection.endWith(pod.drain);
  try {
    const end =
      localPod !== undefined && route.kind === "hbone"
        ? await relayLocally({
            context,
            pod: localPod,
            client,
            accepted,
            source,
            route,
            connection,
            telemetry,
          })
        : await relayOut(journey, connection, telemetry);
    const failure =
      connection.error ??
      (end.error === undefined ? undefined : new ProxyError("RELAY_FAILED", end.error));
    telemetry.close(failure);
  } catch (error) {
    telemetry.close(connection.error ?? asProxyError(error));
  } finally {
    stopEnding();
    untrack();
  }
}

function hopOf({ destination, nextHop, allowedIdentities }: HboneRoute): Hop {
  return { workload: destination, ip: nextHop.ip, allowedIdentities };
}

/** The destination's pod when same-node traffic may stay inside this process (design: `local`). */
function localDestination({ context, route }: Journey): Pod | undefined {
  if (context.config.sameNode !== "local" || route.kind !== "hbone" || route.viaWaypoint)
    return undefined;
  return context.localPod(route.destination);
}

async function relayOut(
  journey: Journey,
  connection: Connection,
  telemetry: ConnectionTelemetry,
): Promise<RelayEnd> {
  const { context, pod, client, accepted, source, route } = journey;
  switch (route.kind) {
    case "hbone": {
      const order = { source, client: accepted.source, route, traceparent: journey.traceparent };
      const stream = await connection.unlessAborted(openTunnel(pod, order), (late) =>
        late.reset(ErrorCode.CANCEL),
      );
      connection.onAbort(() => stream.reset(ErrorCode.CANCEL));
      return stream.relay(client, telemetry.counters);
    }
    case "tcp":
    case "passthrough": {
      const destination = await plainDestination(route, accepted.destination);
      const dialed = dial(context, pod, { destination, timeoutCode: "CONNECT_TIMEOUT" });
      const upstream = await connection.unlessAborted(dialed, (late) => late.destroy());
      connection.onAbort(() => upstream.destroy());
      return relaySockets(client, upstream, telemetry.counters);
    }
    case "double-hbone":
      throw new ProxyError(
        "UNKNOWN_GATEWAY",
        `network ${route.destination.network} can only be reached through an east-west gateway, which this version does not speak to`,
      );
    case "refused":
      throw new ProxyError(route.code, route.reason);
  }
}

async function plainDestination(
  route: Extract<OutboundRoute, { kind: "tcp" | "passthrough" }>,
  dialed: SocketAddress,
): Promise<SocketAddress> {
  if (route.kind === "passthrough") return dialed;
  if ("ip" in route.target) return route.target;
  return {
    ip: await resolveHostname(route.target.hostname, ipFamily(dialed.ip)),
    port: route.target.port,
  };
}

function outboundFacts(
  { accepted, source, route }: Journey,
  id: string,
  path: PathKind,
): ConnectionFacts {
  const destination = destinationOf(route);
  const secured = route.kind === "hbone";
  const principal = destination && spiffeId(workloadIdentity(destination));
  return {
    id,
    direction: "outbound",
    path,
    sourceAddress: accepted.source,
    destinationAddress: nextAddress(route, accepted.destination, path),
    source: partyOfWorkload(source),
    destination: destination === undefined ? UNKNOWN_PARTY : partyOfWorkload(destination),
    ...(route.kind === "hbone" && path === "hbone" && { hboneTarget: route.authority }),
    ...serviceFact(route),
    ...(secured && { sourceIdentity: spiffeId(workloadIdentity(source)) }),
    ...(secured && principal && { destinationIdentity: principal }),
    ...(principal && { destinationPrincipal: principal }),
  };
}

function destinationOf(route: OutboundRoute): Workload | undefined {
  return route.kind === "refused" ? undefined : route.destination;
}

function nextAddress(route: OutboundRoute, dialed: SocketAddress, path: PathKind): SocketAddress {
  if (route.kind === "hbone") return path === "local" ? route.target : route.nextHop;
  if (route.kind === "tcp" && "ip" in route.target) return route.target;
  return dialed;
}

function serviceFact(route: OutboundRoute): {
  service?: { hostname: string; namespace: string; name: string };
} {
  const service: Service | undefined = route.service;
  if (service === undefined) return {};
  return {
    service: { hostname: service.hostname, namespace: service.namespace, name: service.name },
  };
}
