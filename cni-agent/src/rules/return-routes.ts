// Policy routing inside a pod: packets marked as answers to ztunnel's spoofed connections are local,
// whatever their destination (a rule by mark, table 100). Both families where IPv6 is on.

import { readFileSync } from "node:fs";
import type { Ip, IpFamily } from "@ambit/common/net/ip.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { PolicyRouting } from "@ambit/common/sys/netlink-route.ts";
import { inNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { AgentError } from "../errors.ts";
import type { RulesState } from "./backend.ts";
import * as wire from "./wire.ts";

const TABLE = wire.ROUTE_TABLE;
const RULE = {
  priority: wire.RULE_PRIORITY,
  mark: wire.CONNECTION_MARK,
  mask: wire.MARK_MASK,
  table: TABLE,
};

/** The address that marked connections of each family are made from; undefined: the kernel's choice. */
export type RouteSources = Partial<Readonly<Record<IpFamily, Ip | undefined>>>;

/** Who makes no connections by the route gives no sources, and leaves the route of somebody who does. */
export function installReturnRoutes(
  netns: NetnsHandle,
  ipv6: boolean,
  sources?: RouteSources,
): void {
  withRouting(netns, (routing) => {
    for (const family of families(netns, ipv6)) {
      routing.addLocalRoute(family, TABLE, sources?.[family], sources !== undefined);
      routing.addRule(family, RULE);
    }
  });
}

export function removeReturnRoutes(netns: NetnsHandle): void {
  withRouting(netns, (routing) => {
    for (const family of families(netns, true)) {
      routing.removeRule(family, RULE);
      routing.removeLocalRoute(family, TABLE);
    }
  });
}

export function verifyReturnRoutes(netns: NetnsHandle, ipv6: boolean): RulesState {
  const found = withRouting(netns, (routing) =>
    families(netns, ipv6).flatMap((family) => [
      routing.hasRule(family, RULE),
      routing.hasLocalRoute(family, TABLE),
    ]),
  );
  if (!found.includes(true)) return "absent";
  return found.includes(false) ? "drifted" : "ok";
}

/** Throws AgentError. */
function withRouting<T>(netns: NetnsHandle, action: (routing: PolicyRouting) => T): T {
  try {
    using routing = new PolicyRouting(netns.fd);
    return action(routing);
  } catch (error) {
    throw new AgentError("routes-failed", `routes in the pod: ${errorMessage(error)}`, error);
  }
}

function families(netns: NetnsHandle, ipv6: boolean): IpFamily[] {
  return ipv6 && ipv6Enabled(netns) ? [4, 6] : [4];
}

/** Without IPv6 on lo there is nothing to route to. */
function ipv6Enabled(netns: NetnsHandle): boolean {
  try {
    const path = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    return inNetns(netns.fd, () => readFileSync(path, "utf8")).trim() === "0";
  } catch {
    return false;
  }
}
