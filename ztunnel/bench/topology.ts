// A contender's network: a client's and a server's namespace, joined by a third, the node's, where a shared
// ztunnel runs, too: by a bridge there, or by its routes. Names carry the process id and a number; everything
// is removed at the end.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { NodeCgroup } from "../src/testing/node-cgroup.ts";

export const CLIENT_IP = "10.77.0.1";
export const SERVER_IP = "10.77.0.2";
export const SERVICE_IP = "10.96.77.1";
/** What pods send to where the node routes; of each of its links. */
const GATEWAY_IP = "169.254.1.1";
export const HTTP_PORT = 8080;
export const BULK_PORT = 5201;

/** Closed connections are forgotten soon: by the hundred thousand they would fill the kernel's table. */
const CLOSED_TRACKED_SECONDS = 1;

export type Place = "client" | "server" | "node";

/**
 * How a node joins its pods, which depends on the cluster's CNI: by a bridge, or by routes, where it tracks connections
 * and drops what belongs to none, as kube-proxy has it.
 */
export type NodeNetwork = "bridge" | "routes";

const sh = (script: string): void =>
  void execFileSync("sh", ["-ec", script], { stdio: ["ignore", "ignore", "pipe"] });

export class Topology {
  static #made = 0;
  /** All that is measured lives in it, for every contender alike. */
  readonly cgroup = new NodeCgroup();
  readonly #prefix = `ambit-bench-${process.pid}-${Topology.#made++}`;
  readonly #network: NodeNetwork;

  constructor(network: NodeNetwork) {
    this.#network = network;
  }

  netns(place: Place): string {
    return `${this.#prefix}-${place}`;
  }

  up(): void {
    const [client, server, node] = [this.netns("client"), this.netns("server"), this.netns("node")];
    sh(`
      for n in ${client} ${server} ${node}; do
        ip netns add $n; ip -n $n link set lo up
        ip netns exec $n sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1 \
          net.netfilter.nf_conntrack_tcp_timeout_time_wait=${CLOSED_TRACKED_SECONDS} \
          net.netfilter.nf_conntrack_tcp_timeout_syn_sent=${CLOSED_TRACKED_SECONDS}
      done
      ${this.#network === "bridge" ? bridge(node) : router(node)}
      for pod in ${client}=${CLIENT_IP} ${server}=${SERVER_IP}; do
        n=\${pod%=*}; ip link add eth0 netns $n type veth peer name pod-\${n##*-} netns ${node}
        ip -n ${node} link set pod-\${n##*-} up; ip -n $n link set eth0 up
        join_pod pod-\${n##*-} $n \${pod#*=}
      done`);
  }

  down(): void {
    for (const place of ["client", "server", "node"] as const) {
      try {
        sh(`ip netns del ${this.netns(place)}`);
      } catch {
        // It was not there: nothing to remove.
      }
    }
    this.cgroup.remove();
  }

  /** Sends a namespace's TCP to the local proxy, as the node agent does for an enrolled pod. */
  redirect(place: "client" | "server"): void {
    execFileSync("ip", ["netns", "exec", this.netns(place), "nft", "-f", "-"], {
      input: REDIRECT_RULES,
    });
  }

  unredirect(place: "client" | "server"): void {
    sh(`ip netns exec ${this.netns(place)} nft delete table inet bench || true`);
  }

  spawn(
    place: Place,
    command: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): ChildProcess {
    const [file, ...args] = ["ip", "netns", "exec", this.netns(place), ...command];
    return spawn(file, args, {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  run(place: Place, command: readonly string[]): string {
    return execFileSync("ip", ["netns", "exec", this.netns(place), ...command], {
      encoding: "utf8",
      maxBuffer: 16 << 20,
    });
  }
}

/** Shell: `join_pod LINK NETNS IP` has the node carry packets to and from a pod, by its end of the pod's link. */
function bridge(node: string): string {
  return `
      ip -n ${node} link add pods type bridge; ip -n ${node} link set pods up
      join_pod() {
        ip -n ${node} link set $1 master pods
        ip -n $2 addr add $3/24 dev eth0; ip -n $2 route add default dev eth0
      }`;
}

/** The same. */
function router(node: string): string {
  return `
      ip netns exec ${node} sysctl -qw net.ipv4.ip_forward=1
      ip netns exec ${node} nft '${FORWARD_RULES}'
      join_pod() {
        ip -n ${node} addr add ${GATEWAY_IP}/32 dev $1; ip -n ${node} route add $3/32 dev $1
        ip -n $2 addr add $3/32 dev eth0; ip -n $2 route add ${GATEWAY_IP} dev eth0
        ip -n $2 route add default via ${GATEWAY_IP}
      }`;
}

const FORWARD_RULES = `
table inet node {
  chain forward {
    type filter hook forward priority 0
    ct state invalid drop
    ct state established,related accept
  }
}
`;

const REDIRECT_RULES = `
table inet bench {
  chain output {
    type nat hook output priority -100
    meta mark 0x539 return
    oifname "lo" return
    meta l4proto tcp redirect to :15001
  }
  chain prerouting {
    type nat hook prerouting priority -100
    meta mark 0x539 return
    iifname "lo" return
    tcp dport != 15008 redirect to :15006
  }
}
`;
