// One pod's share of a ztunnel that all pods of the node use: beyond its bound, refused.

import type { ByteCounters } from "@ambit/common/hbone/stream.ts";
import type { Direction } from "../telemetry/connection-telemetry.ts";
import type { ConnectionBounds, Seat } from "../telemetry/pod-account.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

/** A place for one more connection, to be disposed of at its end. Throws ProxyError POD_BUSY. */
export function admit({ account }: Pod, direction: Direction, counters: ByteCounters): Seat {
  const seat = account.open(direction, counters);
  if (seat !== undefined) return seat;
  const has = `${account.bounds[direction]} ${direction} connections in this ztunnel worker`;
  const setting = `POD_${direction.toUpperCase()}_CONNECTIONS_MAX`;
  throw new ProxyError("POD_BUSY", `the pod has ${has}, as many as it may: raise ${setting}`);
}

/** One worker's share of a pod's bounds: the kernel spreads a pod's connections over the workers. */
export function connectionBounds({ config }: Pick<ProxyContext, "config">): ConnectionBounds {
  const share = (max: number) => Math.ceil(max / config.workerThreads);
  return { inbound: share(config.podInboundMax), outbound: share(config.podOutboundMax) };
}
