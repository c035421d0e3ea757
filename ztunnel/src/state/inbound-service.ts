// Which service an inbound connection was meant for, for telemetry only (ztunnel §1.4): the one the
// client names, believed if the workload belongs to it; else one of its services that maps the port.

import type { MeshState } from "./mesh-state.ts";
import type { Service } from "./service.ts";
import type { StoredService } from "./service-store.ts";
import type { Workload } from "./workload.ts";

/** `port` is the application's. */
export function inboundService(
  state: MeshState,
  workload: Workload,
  port: number,
  named: string | undefined,
): Service | undefined {
  let mapped: Service | undefined;
  for (const key of workload.services.keys()) {
    const stored = state.services.byKey(key);
    if (!stored?.endpoints.has(workload.uid)) continue;
    if (stored.service.hostname === named) return stored.service;
    if (mapped === undefined && mapsTo(stored, workload, port)) mapped = stored.service;
  }
  return mapped;
}

function mapsTo({ service, endpoints }: StoredService, { uid }: Workload, port: number): boolean {
  const ports = endpoints.get(uid)?.ports;
  for (const [servicePort, targetPort] of service.ports) {
    if (targetPort === port || ports?.get(servicePort) === port) return true;
  }
  return false;
}
