// Naming the source of an inbound tunnel for telemetry. Its identity is what the certificate proves; the
// rest is xDS's word for its address, or else its own in baggage, as far as the certificate bears it out.

import { parseBaggage } from "@ambit/common/hbone/baggage.ts";
import type { Headers } from "@ambit/common/hbone/headers.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";
import { addressKey } from "../state/mesh-state.ts";
import type { Workload } from "../state/workload.ts";
import { type Party, partyOfBaggage, partyOfWorkload, UNKNOWN_PARTY } from "../telemetry/party.ts";
import type { ProxyContext } from "./context.ts";

export interface InboundPeer {
  readonly ip: Ip;
  readonly identity: Identity;
  readonly headers: Headers;
}

/** xDS by address wins, unless the source is on another network, whose addresses mean nothing here. */
export function sourceParty(
  { state, config }: ProxyContext,
  { network }: Workload,
  { ip, identity, headers }: InboundPeer,
): Party {
  const known = isAcross(headers, config.network)
    ? undefined
    : state.workloadByAddress({ network, ip });
  if (known !== undefined) return partyOfWorkload(known);
  return config.responseBaggage ? toldParty(headers, identity) : UNKNOWN_PARTY;
}

/** Where xDS is on demand: asks for the source's workload. What is not told in time is not known. */
export async function seekSource(
  { state, demand }: ProxyContext,
  { network }: Workload,
  ip: Ip,
): Promise<void> {
  const address = { network, ip };
  if (state.workloadByAddress(address) !== undefined) return;
  await demand?.wait(addressKey(address)).catch(() => undefined);
}

/** It came through a gateway from a network that is not ours (ztunnel §1.4). */
function isAcross(headers: Headers, network: string): boolean {
  const from = headers.get("x-forwarded-network");
  return from !== undefined && from.toLowerCase() !== network.toLowerCase();
}

/** Nobody is believed to be in a namespace that its certificate does not name. */
function toldParty(headers: Headers, { namespace }: Identity): Party {
  const told = partyOfBaggage(parseBaggage(headers.get("baggage") ?? ""));
  return told.namespace === undefined || told.namespace === namespace ? told : UNKNOWN_PARTY;
}
