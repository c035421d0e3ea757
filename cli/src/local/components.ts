// The programs of the mesh itself: where each runs, with which settings, and how one sees that it is
// ready. The same programs run on Kubernetes; only these settings differ. Pure.

import { resolve } from "node:path";
import { ISTIOD, nodeAddress } from "./addresses.ts";
import { componentLog, fabricNetns, type Home } from "./home.ts";
import { agentCgroup, kubeletCgroup, nodeCgroup, ztunnelCgroup } from "./node-cgroups.ts";
import type { NodePlace } from "./kubelet.ts";
import { TOKEN_ISSUER } from "./tokens.ts";

export interface Component {
  readonly name: "istiod-lite" | "cni-agent" | "ztunnel";
  readonly node?: string;
  readonly netns: string;
  /** Absent where none is made. */
  readonly cgroup?: string;
  /** The program with its arguments. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly log: string;
  readonly ready: { readonly ip: string; readonly port: number; readonly path: string };
}

export interface MeshOptions {
  readonly nodes: number;
  readonly redirection: "auto" | "ebpf" | "nftables" | "iptables";
  readonly sameNode: "local" | "hbone" | "direct";
  /** Other ztunnels than ours, by node name: absolute paths of programs that take the same settings. */
  readonly ztunnels: Readonly<Record<string, string>>;
}

/** The checkout: programs are started from it, and relative working directories begin there. */
export const REPOSITORY = resolve(import.meta.dirname, "../../..");

function ourProgram(part: Component["name"]): string[] {
  return [process.execPath, resolve(REPOSITORY, part, "src/main.ts")];
}

export const SYSTEM_NAMESPACE = "istio-system";
export const ZTUNNEL_ACCOUNT = "ztunnel";

/** The pod that stands for a node's ztunnel: the CA looks it up before it signs for its neighbours. */
export function ztunnelPodName(node: NodePlace): string {
  return `ztunnel-${node.number}`;
}

export function ztunnelTokenFile(home: Home, node: NodePlace): string {
  return resolve(home.tokens, ztunnelPodName(node));
}

export function zdsSocket(home: Home, node: NodePlace): string {
  return resolve(home.zds, `${node.name}.sock`);
}

interface Authority {
  /** For istiod-lite. */
  readonly env: Readonly<Record<string, string>>;
  /** What signs for the control plane. */
  readonly root: string;
  /** Where its revocation lists are, once it has any. */
  readonly revocations?: string;
}

/** CACERTS_DIR among the settings is a CA that the user plugs in; otherwise the mesh makes its own. */
function authority(home: Home, settings: NodeJS.ProcessEnv): Authority {
  const pluggedIn = settings["CACERTS_DIR"];
  if (pluggedIn === undefined || pluggedIn === "")
    return { env: { CA_DIR: home.ca }, root: resolve(home.ca, "ca-cert.pem") };
  return {
    env: { CACERTS_DIR: pluggedIn },
    root: resolve(pluggedIn, "root-cert.pem"),
    revocations: settings["CRL_PATH"] ?? resolve(pluggedIn, "ca-crl.pem"),
  };
}

export function istiod(home: Home, settings: NodeJS.ProcessEnv): Component {
  return {
    name: "istiod-lite",
    netns: fabricNetns(home),
    command: ourProgram("istiod-lite"),
    log: componentLog(home, "istiod-lite"),
    ready: { ip: ISTIOD.v4, port: 8080, path: "/ready" },
    env: {
      MANIFESTS: home.manifests,
      STATUS_DIR: home.manifests,
      ...authority(home, settings).env,
      JWKS_FILE: home.jwks,
      TOKEN_ISSUER,
      CA_TRUSTED_NODE_ACCOUNTS: `${SYSTEM_NAMESPACE}/${ZTUNNEL_ACCOUNT}`,
      ISTIOD_SAN: `${ISTIOD.v4},${ISTIOD.v6}`,
      // A person waits for the effect of what they just typed.
      PILOT_DEBOUNCE_AFTER: "20ms",
    },
  };
}

/**
 * Whether eBPF may redirect on a node: programs and pods then have cgroups of that node. What another
 * ztunnel takes are connections at fixed ports.
 */
export function mayUseEbpf({ redirection, ztunnels }: MeshOptions, node: string): boolean {
  return redirection === "ebpf" || (redirection === "auto" && ztunnels[node] === undefined);
}

export function cniAgent(home: Home, node: NodePlace, options: MeshOptions): Component {
  const { redirection } = options;
  const ebpf = mayUseEbpf(options, node.name);
  return {
    name: "cni-agent",
    node: node.name,
    netns: node.netns,
    ...(ebpf && { cgroup: agentCgroup(home, node.name) }),
    command: ourProgram("cni-agent"),
    log: componentLog(home, "cni-agent", node.name),
    ready: { ip: nodeAddress(node.number).v4, port: 8000, path: "/readyz" },
    env: {
      NODE_NAME: node.name,
      MANIFESTS: home.manifests,
      ZDS_ADDRESS: zdsSocket(home, node),
      REDIRECTION: redirection === "auto" && !ebpf ? "nftables" : redirection,
      BPF_FS: home.bpf,
      NODE_CGROUP: nodeCgroup(home, node.name),
      KUBELET_CGROUP: kubeletCgroup(home),
    },
  };
}

export function ztunnel(
  home: Home,
  node: NodePlace,
  options: MeshOptions,
  settings: NodeJS.ProcessEnv,
): Component {
  const { sameNode, ztunnels } = options;
  const other = ztunnels[node.name];
  const controlPlane = `https://${ISTIOD.v4}:15012`;
  const { root, revocations } = authority(home, settings);
  return {
    name: "ztunnel",
    node: node.name,
    netns: node.netns,
    ...(mayUseEbpf(options, node.name) && { cgroup: ztunnelCgroup(home, node.name) }),
    command: other === undefined ? ourProgram("ztunnel") : [other],
    log: componentLog(home, "ztunnel", node.name),
    ready: { ip: nodeAddress(node.number).v4, port: 15_021, path: "/healthz/ready" },
    env: {
      NODE_NAME: node.name,
      XDS_ADDRESS: controlPlane,
      CA_ADDRESS: controlPlane,
      XDS_ROOT_CA: root,
      CA_ROOT_CA: root,
      ...(revocations !== undefined && { CRL_PATH: revocations }),
      AUTH_TOKEN: ztunnelTokenFile(home, node),
      INPOD_UDS: zdsSocket(home, node),
      BPF_FS: home.bpf,
      POD_NAME: ztunnelPodName(node),
      POD_NAMESPACE: SYSTEM_NAMESPACE,
      INSTANCE_IP: nodeAddress(node.number).v4,
      SAME_NODE: sameNode,
    },
  };
}
