// The agent's configuration: Istio's environment variables where Istio has them, parsed once.

import { type Environment, EnvironmentReader } from "@ambit/common/process/config.ts";
import { DEFAULT_BPF_FS } from "@ambit/common/sys/bpffs.ts";
import { parseLevelFilter } from "@ambit/common/telemetry/log.ts";
import {
  DEFAULT_SELECTORS,
  type EnablementSelector,
  parseSelectors,
} from "./enrolment/selector.ts";
import type { RedirectionMode } from "./rules/redirection-choice.ts";

import type { RepairOptions } from "./mesh/pod-repair.ts";

export interface Config {
  readonly nodeName: string;
  /** Folders of manifests; annotations are written into the first. */
  readonly manifestFolders: readonly string[];
  readonly zdsPath: string;
  readonly dnsCapture: boolean;
  readonly ipv6: boolean;
  readonly excludedNamespaces: ReadonlySet<string>;
  readonly systemNamespace: string;
  readonly selectors: readonly EnablementSelector[];
  readonly redirection: RedirectionMode;
  /** Where the maps and programs of redirection by eBPF are pinned. */
  readonly bpfFs: string;
  /** The cgroup that holds the node's pods, this agent and ztunnel; undefined: the node's root. */
  readonly cgroup: string | undefined;
  /** The cgroup of the node's kubelet, whose sockets may probe pods; undefined: found by its process. */
  readonly kubeletCgroup: string | undefined;
  /** Whether packets of direct connections may go from pod to pod past the node's network. */
  readonly shortcuts: boolean;
  /** The kind of iptables where iptables is used; undefined: the one that the node uses. */
  readonly iptablesKind: "nft" | "legacy" | undefined;
  /** Whose sockets on the node may probe pods; undefined: any of the node's own. */
  readonly probeUid: number | undefined;
  readonly reconcileRulesAtStart: boolean;
  /** How often every enrolled pod's rules are compared and its capture proven anew. */
  readonly auditIntervalMs: number;
  /** What is done, besides trying again, about pods that cannot be captured. */
  readonly repair: RepairOptions;
  /** How long captured connections of a pod that leaves the mesh may go on. */
  readonly unenrolmentDrainMs: number;
  /** The node's network namespace when it is not the agent's own. */
  readonly hostNetnsPath: string | undefined;
  readonly procFolder: string;
  readonly bindAddress: string;
  readonly metricsPort: number;
  readonly healthPort: number;
  readonly logLevel: string;
  readonly logFormat: "plain" | "json";
}

/** A short program or two per pod, none by eBPF: a hundred pods cost a few per cent of a core at most. */
const AUDIT_INTERVAL_MS = 30_000;
const AUDIT_INTERVAL_MIN_MS = 100;

/** Peers learn within a second that a pod left; requests that were under way have time to finish. */
const UNENROLMENT_DRAIN_MS = 5_000;
/** A pod that nobody wants in the mesh is out of it after an hour at the latest. */
const UNENROLMENT_DRAIN_MAX_MS = 3_600_000;

const UID_MAX = 2 ** 32 - 2;
const PORT = { min: 0, max: 65_535 };

/** Throws UserError with every problem found. */
export function parseConfig(env: Environment): Config {
  const read = new EnvironmentReader(env);
  const nodeName = read.text("NODE_NAME", "");
  if (nodeName === "") read.reject("NODE_NAME", "the name of this node is required");
  const manifestFolders = list(read.text("MANIFESTS", ""));
  if (manifestFolders.length === 0) read.reject("MANIFESTS", "a folder of manifests is required");
  const logLevel = read.text("LOG_LEVEL", "info");
  read.parsed("LOG_LEVEL", undefined, (value) => void parseLevelFilter(value));
  const zds = read.text("ZDS_ADDRESS") ?? read.text("ZTUNNEL_UDS_ADDRESS");
  const probeUid = read.integer("PROBE_UID", -1, { min: 0, max: UID_MAX });
  const auditIntervalMs = read.durationMs("CAPTURE_AUDIT_INTERVAL", AUDIT_INTERVAL_MS);
  if (auditIntervalMs < AUDIT_INTERVAL_MIN_MS) {
    read.reject("CAPTURE_AUDIT_INTERVAL", `at least ${AUDIT_INTERVAL_MIN_MS}ms`);
  }
  const unenrolmentDrainMs = read.durationMs("UNENROLMENT_DRAIN", UNENROLMENT_DRAIN_MS);
  if (unenrolmentDrainMs > UNENROLMENT_DRAIN_MAX_MS) read.reject("UNENROLMENT_DRAIN", "at most 1h");
  const config: Config = {
    nodeName,
    manifestFolders,
    zdsPath: zds ?? "/var/run/ztunnel/ztunnel.sock",
    dnsCapture: read.flag("AMBIENT_DNS_CAPTURE", true),
    ipv6: read.flag("AMBIENT_IPV6", true),
    excludedNamespaces: new Set(list(read.text("EXCLUDE_NAMESPACES", "kube-system"))),
    systemNamespace: read.text("SYSTEM_NAMESPACE", "istio-system"),
    selectors: read.parsed("AMBIENT_ENABLEMENT_SELECTOR", DEFAULT_SELECTORS, parseSelectors),
    redirection: read.oneOf("REDIRECTION", ["auto", "ebpf", "nftables", "iptables"], "auto"),
    bpfFs: read.text("BPF_FS", DEFAULT_BPF_FS),
    cgroup: read.text("NODE_CGROUP"),
    kubeletCgroup: read.text("KUBELET_CGROUP"),
    shortcuts: read.flag("DIRECT_SHORTCUTS", true),
    iptablesKind: forcedIptables(read),
    probeUid: probeUid < 0 ? undefined : probeUid,
    reconcileRulesAtStart: read.flag("AMBIENT_RECONCILE_POD_RULES_ON_STARTUP", true),
    auditIntervalMs,
    repair: readRepair(read),
    unenrolmentDrainMs,
    hostNetnsPath: read.text("HOST_NETNS"),
    procFolder: read.text("PROC_DIR", "/proc"),
    bindAddress: read.text("BIND_ADDRESS", "::"),
    metricsPort: read.integer("METRICS_PORT", 15_014, PORT),
    healthPort: read.integer("HEALTH_PORT", 8_000, PORT),
    logLevel,
    logFormat: read.oneOf("LOG_FORMAT", ["plain", "json"], "plain"),
  };
  read.finish();
  return config;
}

/** Empty, as Istio's chart leaves it, forces nothing. */
function forcedIptables(read: EnvironmentReader): "nft" | "legacy" | undefined {
  const kind = read.oneOf("FORCE_IPTABLES_BINARY", ["nft", "legacy", "auto"], "auto");
  return kind === "auto" ? undefined : kind;
}

/** Istio's names and defaults. */
function readRepair(read: EnvironmentReader): RepairOptions {
  return {
    deletePods: read.flag("REPAIR_DELETE_PODS", false),
    labelPods: read.flag("REPAIR_LABEL_PODS", false),
    labelKey: read.text("REPAIR_LABEL_KEY", "cni.istio.io/uninitialized"),
    labelValue: read.text("REPAIR_LABEL_VALUE", "true"),
  };
}

function list(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}
