// Same node, both enrolled: this process holds both identities, so it authorizes exactly as an HBONE
// inbound would and relays app to app, without TLS and HTTP/2 with itself (mode `local`).

import { relaySockets, type ByteCounters, type RelayEnd } from "@ambit/common/hbone/relay.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import type { HboneRoute } from "../state/outbound-route.ts";
import { type Workload, workloadIdentity } from "../state/workload.ts";
import type { ConnectionTelemetry } from "../telemetry/connection-telemetry.ts";
import { partyOfWorkload } from "../telemetry/party.ts";
import type { Accepted } from "./accept.ts";
import type { Connection } from "./connection.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";
import { serve } from "./serve.ts";

export interface LocalRelay {
  readonly context: ProxyContext;
  /** The destination's pod. */
  readonly pod: Pod;
  readonly client: ByteSocket;
  readonly accepted: Accepted;
  readonly source: Workload;
  readonly route: HboneRoute;
  readonly connection: Connection;
  readonly opened?: () => void;
  /** The source side's; its counters serve both reporters. */
  readonly telemetry: ConnectionTelemetry;
  /** Called when the application has taken the connection. */
  onServed(): void;
}

/** Resolves when the relay has ended; rejects with what the destination side refused it for. */
export async function relayLocally(relay: LocalRelay): Promise<RelayEnd> {
  const { context, pod, client, accepted, source, route, telemetry } = relay;
  if (pod.ownPorts.has(route.target.port)) {
    throw new ProxyError(
      "SELF_CALL",
      `port ${route.target.port} is ztunnel's own: recursive call refused`,
    );
  }
  const certificates = requireCertificates(context, source, route.destination);
  await relay.connection.unlessAborted(certificates, () => undefined);
  let end: RelayEnd = {};
  await serve(
    {
      id: relay.connection.id,
      context,
      pod,
      workload: route.destination,
      path: "local",
      source: accepted.source,
      sourceParty: partyOfWorkload(source),
      sourceIdentity: workloadIdentity(source),
      destination: route.target,
      target: route.target,
      counters: new Mirrored(telemetry.counters),
      outbound: relay.connection,
      ...(route.service && { service: route.service }),
    },
    async (app, _, inbound) => {
      relay.onServed();
      inbound.onAbort(() => relay.connection.abort(inbound.error!));
      relay.opened?.();
      end = await relaySockets(client, app, telemetry.counters);
      return end;
    },
  );
  return end;
}

/** Without TLS the identities still must hold: both certificates are there and valid, or we refuse. */
async function requireCertificates(
  { certificates, revocation }: ProxyContext,
  ...workloads: Workload[]
): Promise<void> {
  for (const workload of workloads) {
    const id = spiffeId(workloadIdentity(workload));
    const certificate = certificates.current(id) ?? (await certificates.get(id));
    revocation?.requireOwn(certificate);
  }
}

/** The same bytes as the destination side counts them. */
class Mirrored implements ByteCounters {
  readonly #outbound: ByteCounters;

  constructor(outbound: ByteCounters) {
    this.#outbound = outbound;
  }

  get sent(): number {
    return this.#outbound.received;
  }

  get received(): number {
    return this.#outbound.sent;
  }
}
