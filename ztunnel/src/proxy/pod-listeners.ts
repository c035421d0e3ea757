// The listeners of one pod, for one of the two ways by which its connections come: to ztunnel's fixed ports
// by address translation, or to any port by steering (bpf/README.md), which finds the sockets in a map.

import { HBONE_PORT } from "@ambit/common/hbone/limits.ts";
import { type Clock, sleep } from "@ambit/common/process/clock.ts";
import type { ByteListener } from "@ambit/common/sys/accept-bytes.ts";
import { type ListenerRole, Steering } from "@ambit/common/sys/bpf-steering.ts";
import { localPort, socketCookie } from "@ambit/common/sys/sockets.ts";
import { INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from "../config.ts";
import type { DnsProxy } from "../dns/server.ts";
import { acceptConnections, listenIn } from "./accept.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { handleInboundPassthrough } from "./inbound-passthrough.ts";
import { handleInbound } from "./inbound.ts";
import { handleOutbound } from "./outbound.ts";

/** How a pod's connections are steered to us. */
export interface PodSteering {
  /** The node's folder in the BPF file system. */
  readonly pins: string;
  readonly slot: number;
  /** Ports for several workers to share; without them each listener takes any. */
  readonly ports?: Readonly<Record<ListenerRole, number>>;
}

/** Handshakes that began before a successor took over end on the old listener: one lost packet's worth. */
export const HANDOVER_MS = 1_000;

interface Listener {
  readonly role: ListenerRole;
  readonly fd: number;
  readonly server: Pick<ByteListener, "close">;
}

export class PodListeners {
  readonly #listeners: Listener[] = [];
  readonly #steering: PodSteering | undefined;

  /** Opens all of them; throws SystemError, with nothing left open, when one cannot be. */
  constructor(
    context: ProxyContext,
    pod: Pod,
    dns: DnsProxy | undefined,
    steering: PodSteering | undefined,
  ) {
    this.#steering = steering;
    const listen = (role: ListenerRole, accept: (fd: number) => Listener["server"]) => {
      const port = steering === undefined ? FIXED_PORTS[role] : (steering.ports?.[role] ?? 0);
      const fd = listenIn(context, pod, {
        port,
        steered: steering !== undefined,
        relayed: role === "OUTBOUND" || role === "PLAINTEXT",
      });
      this.#listeners.push({ role, fd, server: accept(fd) });
    };
    try {
      listen("OUTBOUND", (fd) =>
        acceptConnections(fd, (socket) => void handleOutbound(context, pod, socket)),
      );
      listen("PLAINTEXT", (fd) =>
        acceptConnections(fd, (socket) => void handleInboundPassthrough(context, pod, socket)),
      );
      listen("HBONE", (fd) =>
        acceptConnections(fd, (socket) => void handleInbound(context, pod, socket)),
      );
      // What translation redirects of DNS goes to the proxy's own ports on loopback.
      if (dns !== undefined && steering !== undefined) listen("DNS", (fd) => dns.acceptTcp(fd));
      this.register();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Where connections are steered to; undefined when they come by address translation. */
  get slot(): number | undefined {
    return this.#steering?.slot;
  }

  /** Ports that must not be reached through us: that would be us again. */
  get ports(): number[] {
    return [HBONE_PORT, ...this.#listeners.map(({ fd }) => localPort(fd))];
  }

  /** Has new connections steered here, whoever got them before. Throws SystemError. */
  register(): void {
    this.#withMap((map, slot) => {
      for (const { role, fd } of this.#listeners) map.setListener(slot, role, fd);
    });
  }

  /** Closes: at once, or where a successor has taken over, when what began here has been accepted. */
  async handOver(clock: Clock): Promise<void> {
    if (this.#isReplaced()) await sleep(clock, HANDOVER_MS);
    this.close();
  }

  close(): void {
    for (const { server } of this.#listeners.splice(0)) server.close();
  }

  /** Whether new connections of a steered pod go to another ztunnel, or to other listeners of ours. */
  #isReplaced(): boolean {
    let replaced = false;
    try {
      this.#withMap((map, slot) => {
        for (const { role, fd } of this.#listeners) {
          const current = map.listener(slot, role);
          replaced ||= current !== undefined && current !== socketCookie(fd);
        }
      });
    } catch {
      // No map, no successor: redirection itself has gone.
    }
    return replaced;
  }

  #withMap(action: (map: Steering, slot: number) => void): void {
    if (this.#steering === undefined) return;
    using map = Steering.openPinned(this.#steering.pins, ["listeners"]);
    action(map, this.#steering.slot);
  }
}

const FIXED_PORTS: Readonly<Record<ListenerRole, number>> = {
  OUTBOUND: OUTBOUND_PORT,
  PLAINTEXT: INBOUND_PLAINTEXT_PORT,
  HBONE: HBONE_PORT,
  // Not opened here: the DNS proxy has it on loopback.
  DNS: 0,
};
