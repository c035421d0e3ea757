// Locating: a route whose next hop has only a hostname becomes one with an address. A name that cannot be
// found is a refusal like any other, with the parties known.

import type { NamedRoute, SettledRoute } from "../state/outbound-route.ts";
import type { Workload } from "../state/workload.ts";
import type { ProxyContext } from "./context.ts";
import { asProxyError } from "./proxy-error.ts";

/** Waits for DNS. Never rejects. */
export async function locate(
  { names, onDemandDns }: ProxyContext,
  source: Workload,
  route: NamedRoute,
): Promise<SettledRoute> {
  const { hostname, family, service } = route;
  onDemandDns.count(source, hostname);
  try {
    return route.at(await names.find(hostname, family));
  } catch (error) {
    const { message } = asProxyError(error);
    const where = service && { service };
    return { kind: "refused", code: "CONNECT_FAILED", reason: message, ...where };
  }
}
