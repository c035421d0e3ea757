// One pod's share of a ztunnel that all pods of the node use: beyond its bound, refused.

import type { ByteCounters } from "@ambit/common/hbone/stream.ts";
import type { Direction } from "../telemetry/connection-telemetry.ts";
import type { Seat } from "../telemetry/pod-account.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

/** A place for one more connection, to be disposed of at its end. Throws ProxyError POD_BUSY. */
export function admit({ account }: Pod, direction: Direction, counters: ByteCounters): Seat {
  const seat = account.open(direction, counters);
  if (seat !== undefined) return seat;
  throw new ProxyError(
    "POD_BUSY",
    `the pod has ${account.connectionsMax} connections in this ztunnel worker already, as many as it may: ` +
      "close some, or raise POD_CONNECTIONS_MAX",
  );
}

/** One worker's share of a pod's bound: the kernel spreads a pod's connections over the workers. */
export function connectionsMax({ config }: ProxyContext): number {
  return Math.ceil(config.podConnectionsMax / config.workerThreads);
}
