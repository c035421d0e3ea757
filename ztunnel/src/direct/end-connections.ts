// Ending direct connections that are no longer allowed: at the destination, by the kernel's own list of
// its sockets. The source may be an attacker, who lets nothing out that would end a connection.

import type { Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress, type SocketAddress } from "@ambit/common/net/socket-address.ts";
import type { TcpSocket } from "@ambit/common/sys/sock-diag.ts";
import type { DirectPod } from "./decide.ts";
import type { DirectKernel } from "./kernel.ts";

/** All connections of these addresses to that one. */
export interface Ending {
  readonly sourceIps: readonly Ip[];
  readonly target: DirectPod;
  readonly to: SocketAddress;
}

export function endConnections(kernel: DirectKernel, endings: readonly Ending[]): void {
  const byTarget = Map.groupBy(endings, ({ target }) => target);
  for (const [target, ofTarget] of byTarget) {
    const { netnsFd } = target.pod;
    const sockets = kernel.connections(netnsFd);
    const relayed = relayedBy(sockets);
    const doomed = sockets.filter(
      (socket) =>
        !relayed.has(nameOf(socket.remote, socket.local)) &&
        ofTarget.some((ending) => isMeant(ending, socket)),
    );
    kernel.end(netnsFd, doomed);
  }
}

function isMeant({ to, sourceIps }: Ending, { local, remote }: TcpSocket): boolean {
  return local.port === to.port && local.ip === to.ip && sourceIps.includes(remote.ip);
}

/** ztunnel calls the application from the pod's namespace: both ends of such a connection are here. */
function relayedBy(sockets: readonly TcpSocket[]): Set<string> {
  return new Set(sockets.map(({ local, remote }) => nameOf(local, remote)));
}

function nameOf(from: SocketAddress, to: SocketAddress): string {
  return `${formatSocketAddress(from)} ${formatSocketAddress(to)}`;
}
