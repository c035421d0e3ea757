// The life of an inbound plaintext connection: a client outside the mesh reached an enrolled pod. It has
// no identity, so STRICT policies refuse it; what they allow is handed to the application as it is.

import { relaySockets } from "@ambit/common/hbone/relay.ts";
import { newTraceparent, traceIdOf } from "@ambit/common/hbone/traceparent.ts";
import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { logEarlyFailure } from "../telemetry/connection-telemetry.ts";
import { inboundService } from "../state/inbound-service.ts";
import { partyOfWorkload, UNKNOWN_PARTY } from "../telemetry/party.ts";
import { type Accepted, describeRedirected, refuseOwnDelivery, refuseSelfCall } from "./accept.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { identify } from "./identify.ts";
import { asProxyError, type ProxyError } from "./proxy-error.ts";
import { serve } from "./serve.ts";

/** Handles one redirected connection to `pod`; `client` comes paused. Never rejects. */
export async function handleInboundPassthrough(
  context: ProxyContext,
  pod: Pod,
  client: ByteSocket,
): Promise<void> {
  using hold = pod.drain.hold("plaintext connection");
  const accepted = describeRedirected(client);
  if (accepted === undefined) return client.destroy();
  const id = traceIdOf(newTraceparent());
  context.sockets.destination++;
  try {
    refuseOwnDelivery(client);
    refuseSelfCall(pod, accepted, "inbound");
    await servePlaintext({ id, context, pod, client, accepted });
  } catch (error) {
    const failure = asProxyError(error);
    if (isEarly(failure)) {
      logEarlyFailure(context.telemetry, { ...accepted, id, direction: "inbound", error: failure });
    }
  } finally {
    context.sockets.destination--;
    client.destroy();
    hold.release();
  }
}

const EARLY_CODES: ReadonlySet<string> = new Set(["SELF_CALL", "UNKNOWN_SOURCE"]);

/** What failed before `serve` wrote an access line of its own. */
function isEarly({ code }: ProxyError): boolean {
  return EARLY_CODES.has(code);
}

interface Arrival {
  readonly id: string;
  readonly context: ProxyContext;
  readonly pod: Pod;
  readonly client: ByteSocket;
  readonly accepted: Accepted;
}

async function servePlaintext({ id, context, pod, client, accepted }: Arrival): Promise<void> {
  const workload = await identify(context, pod);
  const known = context.state.workloadByAddress({
    network: workload.network,
    ip: accepted.source.ip,
  });
  const service = inboundService(context.state, workload, accepted.destination.port, undefined);
  await serve(
    {
      id,
      context,
      pod,
      workload,
      path: "tcp",
      source: accepted.source,
      sourceParty: known === undefined ? UNKNOWN_PARTY : partyOfWorkload(known),
      destination: accepted.destination,
      target: accepted.destination,
      ...(service && { service }),
    },
    (app, counters, connection) => {
      connection.onAbort(() => client.reset());
      return relaySockets(app, client, counters);
    },
  );
}
