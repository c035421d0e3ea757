// The life of an outbound connection, from accept to access line. Each step is a file of its own:
//   accept → identify → resolve (state/outbound-route) → authorize (at the far side; here for `local`)
//   → tunnel or dial → relay → one access line.

import { relaySockets, type RelayEnd } from "@ambit/common/hbone/relay.ts";
import { ErrorCode } from "@ambit/common/http2/protocol.ts";
import { isCaptureProbe } from "@ambit/common/net/capture-probe.ts";
import { ipFamily } from "@ambit/common/net/ip.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import type { SocketAddress } from "@ambit/common/net/socket-address.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import { resolveOutbound, type OutboundRoute } from "../state/outbound-route.ts";
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
import type { Connection } from "./connection.ts";
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
  try {
    refuseSelfCall(accepted.destination, "outbound");
    const source = knownWorkload(context, pod) ?? (await identify(context, pod));
    const route = resolveOutbound(context.state, {
      source,
      destination: accepted.destination,
      random: context.random,
    });
    await carry({ context, pod, client, accepted, source, route });
  } catch (error) {
    const failure = {
      source: accepted.source,
      destination: accepted.destination,
      direction: "outbound" as const,
    };
    logEarlyFailure(context.telemetry.access, { ...failure, error: asProxyError(error) });
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
}

/** Opens telemetry, moves the bytes, and writes the access line whatever happens. */
async function carry(journey: Journey): Promise<void> {
  const { context, pod, client, accepted, source, route } = journey;
  const connection = context.connections.create();
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
  });
  connection.onAbort(() => client.destroy());
  const cutOnForce = () => connection.abort(drained());
  pod.drain.forced.addEventListener("abort", cutOnForce, { once: true });
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
    pod.drain.forced.removeEventListener("abort", cutOnForce);
    untrack();
  }
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
      const stream = await openTunnel(pod, { source, client: accepted.source, route });
      connection.onAbort(() => stream.reset(ErrorCode.CANCEL));
      return stream.relay(client, telemetry.counters);
    }
    case "tcp":
    case "passthrough": {
      const destination = await plainDestination(route, accepted.destination);
      const upstream = await dial(context, pod, { destination, timeoutCode: "CONNECT_TIMEOUT" });
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

function drained(): ProxyError {
  return new ProxyError("DRAINED", "connection closed due to connection drain");
}
