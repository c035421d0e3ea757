// The state folder of one local mesh and the names that follow from it. Two meshes on one machine have
// two folders, so their namespaces never collide. Creates nothing.

import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import type { Environment } from "@ambit/common/process/config.ts";

export const DEFAULT_HOME = "/run/ambit";

/** Paths below AMBIT_HOME, and the prefix of every network namespace of this mesh. */
export interface Home {
  readonly root: string;
  readonly prefix: string;
  readonly manifests: string;
  readonly runFile: string;
  readonly logs: string;
  readonly ca: string;
  readonly tokens: string;
  readonly jwks: string;
  /** resolv.conf and hosts files, bound over /etc inside pods. */
  readonly etc: string;
  readonly zds: string;
  /** A BPF file system, where redirection by eBPF keeps what outlives its programs. */
  readonly bpf: string;
}

/** Where the local mesh of this environment lives: AMBIT_HOME, else /run/ambit. */
export function homeOf(env: Environment): Home {
  const root = resolve(env["AMBIT_HOME"] || DEFAULT_HOME);
  return {
    root,
    prefix: prefixOf(root),
    manifests: join(root, "manifests"),
    runFile: join(root, "run.json"),
    logs: join(root, "logs"),
    ca: join(root, "ca"),
    tokens: join(root, "tokens"),
    jwks: join(root, "jwks.json"),
    etc: join(root, "etc"),
    zds: join(root, "zds"),
    bpf: join(root, "bpf"),
  };
}

/** `ambit-` for the default folder; no prefix is the beginning of another folder's. */
function prefixOf(root: string): string {
  if (root === DEFAULT_HOME) return "ambit-";
  return `ambit.${createHash("sha256").update(root).digest("hex").slice(0, 8)}-`;
}

export function fabricNetns(home: Home): string {
  return `${home.prefix}fabric`;
}

/** `node-1` and so on: the node's own name carries its number. */
export function nodeNetns(home: Home, node: string): string {
  return `${home.prefix}${node}`;
}

export function podNetns(home: Home, namespace: string, name: string): string {
  return `${home.prefix}pod-${namespace}-${name}`;
}

export function netnsPath(name: string): string {
  return `/run/netns/${name}`;
}

/** What a supervisor in the background prints. */
export function supervisorLog(home: Home): string {
  return join(home.root, "supervisor.log");
}

/** The log of a component, or of a pod's container. */
export function componentLog(home: Home, component: string, node?: string): string {
  return join(home.logs, node === undefined ? `${component}.log` : `${component}-${node}.log`);
}

export function podLog(home: Home, namespace: string, name: string, container: string): string {
  return join(home.logs, "pods", `${namespace}.${name}.${container}.log`);
}
