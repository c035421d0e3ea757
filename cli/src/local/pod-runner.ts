// One pod on this machine: its namespace and wires, its programs, its probes, and what the store is told
// about them. Programs of a pod that belongs in the mesh start only once the node agent has enrolled it.

import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Pod } from "@ambit/api/resources/kinds.ts";
import type { FolderStore } from "@ambit/common/resources/folder-store.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { type DualIp, nodeAddress, nodeGateway } from "./addresses.ts";
import { commandOf, type Container, environmentOf } from "./container.ts";
import { enterCommand, type Inside } from "./enter.ts";
import { etcFilesOf } from "./etc-files.ts";
import { type Home, netnsPath, podLog, podNetns } from "./home.ts";
import { killAll } from "./leftovers.ts";
import { podCgroup, removeCgroup } from "./node-cgroups.ts";
import { NETNS_ANNOTATION, podKey } from "./pod-facts.ts";
import { ReadinessProbe } from "./probe.ts";
import type { PodEntry } from "./run-file.ts";
import { SupervisedProcess } from "./supervised-process.ts";
import { createPod, removePod } from "./topology.ts";
import { CLUSTER_DOMAIN } from "./names.ts";

/** Kubelet's, but a query that was lost with its ztunnel is repeated after one second, not five. */
const RESOLVER_OPTIONS = "options ndots:5 timeout:1 attempts:5";
/** Kubernetes gives 30 s; a developer's Ctrl-C should not wait that long. */
const GRACE_DEFAULT_SECONDS = 2;

export interface PodRunnerOptions {
  readonly home: Home;
  readonly store: FolderStore;
  readonly clock: Clock;
  readonly node: { readonly name: string; readonly number: number; readonly netns: string };
  readonly address: DualIp;
  /** The node's end of the pod's link. */
  readonly link: string;
  /** Where containers start; their own workingDir may be relative to it. */
  readonly workingDir: string;
  readonly env: NodeJS.ProcessEnv;
  /** Whether the pod's programs run in a cgroup of its own. */
  readonly hasCgroup: boolean;
  onChange(): void;
}

interface RunningContainer {
  readonly name: string;
  /** Absent when the manifest names no program: the pod is then only a place. */
  readonly process?: SupervisedProcess;
  readonly probe?: ReadinessProbe;
  exitCode?: number;
}

export class PodRunner {
  readonly #options: PodRunnerOptions;
  readonly #netns: string;
  #pod: Pod;
  #containers: RunningContainer[] = [];
  #phase: "creating" | "waiting" | "started" | "stopped" = "creating";
  #created: Promise<void> | undefined;
  #written = "";
  #writing: Promise<unknown> = Promise.resolve();

  constructor(options: PodRunnerOptions, pod: Pod) {
    this.#options = options;
    this.#pod = pod;
    const { namespace, name } = podKey(pod);
    this.#netns =
      pod.spec.hostNetwork === true ? options.node.netns : podNetns(options.home, namespace, name);
  }

  get uid(): string | undefined {
    return this.#pod.metadata.uid;
  }

  /** The programs as the manifest has them; when this differs the pod is made anew. */
  get shape(): string {
    return shapeOf(this.#pod);
  }

  get hasOwnNetwork(): boolean {
    return this.#pod.spec.hostNetwork !== true;
  }

  /** Makes the namespace, its wires and files, and tells the store the address. */
  create(): Promise<void> {
    this.#created ??= this.#create();
    return this.#created;
  }

  async #create(): Promise<void> {
    const { address, link, node } = this.#options;
    this.#writeEtc();
    if (this.#cgroup !== undefined) mkdirSync(this.#cgroup, { recursive: true });
    if (this.hasOwnNetwork) {
      await createPod({
        netns: this.#netns,
        nodeNetns: node.netns,
        node: node.number,
        link,
        address,
      });
    }
    if (this.#phase === "creating") this.#phase = "waiting";
    this.#report();
    await this.#writing;
  }

  /** Takes the pod's current object and starts its programs when they may run. */
  update(pod: Pod, mayStart: boolean): void {
    this.#pod = pod;
    if (this.#phase !== "waiting" || !mayStart) return;
    this.#phase = "started";
    this.#containers = pod.spec.containers.map((container) => this.#prepare(container));
    // Only now: a pod none of whose containers is known yet would look as if all had ended.
    for (const { process, probe } of this.#containers) {
      process?.start();
      probe?.start();
    }
    this.#report();
  }

  /** Ends the programs, then cuts the wires. `graceMs` bounds what the pod asks for. */
  async stop(graceMsMax = Infinity): Promise<void> {
    this.#phase = "stopped";
    const { terminationGracePeriodSeconds } = this.#pod.spec;
    const wanted =
      typeof terminationGracePeriodSeconds === "number"
        ? terminationGracePeriodSeconds
        : GRACE_DEFAULT_SECONDS;
    for (const { probe } of this.#containers) probe?.stop();
    const graceMs = Math.min(wanted * 1000, graceMsMax);
    await this.#created?.catch(() => undefined);
    await Promise.all(this.#containers.map(async ({ process }) => process?.stop(graceMs)));
    await this.#writing;
    const { node, link } = this.#options;
    if (this.hasOwnNetwork) {
      await killAll([this.#netns]);
      await removePod({ netns: this.#netns, nodeNetns: node.netns, link });
    }
    if (this.#cgroup !== undefined) await removeCgroup(this.#cgroup);
  }

  get #cgroup(): string | undefined {
    const { home, node, hasCgroup } = this.#options;
    const { namespace, name } = podKey(this.#pod);
    return hasCgroup ? podCgroup(home, node.name, namespace, name) : undefined;
  }

  entry(): PodEntry {
    const { address, link, node } = this.#options;
    const { namespace, name } = podKey(this.#pod);
    const app = this.#pod.metadata.labels?.["app"];
    const logs = this.#pod.spec.containers.map(({ name: container }): [string, string] => [
      container,
      podLog(this.#options.home, namespace, name, container),
    ]);
    return {
      namespace,
      name,
      ...(app !== undefined && { app }),
      node: node.name,
      netns: this.#netns,
      link: this.hasOwnNetwork ? link : "eth0",
      ips: this.hasOwnNetwork ? [address.v4, address.v6] : Object.values(nodeAddress(node.number)),
      pids: this.#containers.flatMap(({ process }) => process?.pid ?? []),
      logs: Object.fromEntries(logs),
    };
  }

  #prepare(container: Container): RunningContainer {
    const { home, clock, env, node, address } = this.#options;
    const { namespace, name } = podKey(this.#pod);
    const variables = environmentOf(this.#pod, container, env);
    const command = commandOf(container, variables);
    if (command === undefined) return { name: container.name };
    const inside = this.#inside(container.workingDir);
    const log = podLog(home, namespace, name, container.name);
    const { restartPolicy = "Always" } = this.#pod.spec as { restartPolicy?: string };
    const restart = RESTARTS[restartPolicy] ?? "always";
    const onChange = () => this.#report();
    const running: RunningContainer = {
      name: container.name,
      process: new SupervisedProcess(
        { command: enterCommand(inside, command), env: variables, log, restart },
        clock,
        { onChange, onExit: (code) => (running.exitCode = code) },
      ),
      ...(container.readinessProbe && {
        probe: new ReadinessProbe(
          container.readinessProbe,
          {
            pod: this.#pod,
            podIp: this.hasOwnNetwork ? address.v4 : nodeAddress(node.number).v4,
            nodeNetns: netnsPath(node.netns),
            inside: (argv) => enterCommand(inside, argv),
          },
          clock,
          onChange,
        ),
      }),
    };
    return running;
  }

  #inside(workingDir = ""): Inside {
    const { home, workingDir: root } = this.#options;
    const files = etcFiles(home, this.#pod);
    const cgroup = this.#cgroup;
    return { netns: this.#netns, ...files, workingDir: resolve(root, workingDir), cgroup };
  }

  #writeEtc(): void {
    const { home, node, address } = this.#options;
    const { namespace, name } = podKey(this.#pod);
    const files = etcFiles(home, this.#pod);
    mkdirSync(join(home.logs, "pods"), { recursive: true });
    const search = [`${namespace}.svc`, "svc", ""].map((part) =>
      part === "" ? CLUSTER_DOMAIN : `${part}.${CLUSTER_DOMAIN}`,
    );
    writeFileSync(
      files.resolvConf,
      `search ${search.join(" ")}\nnameserver ${nodeGateway(node.number).v4}\n${RESOLVER_OPTIONS}\n`,
    );
    writeFileSync(
      files.hosts,
      `127.0.0.1 localhost\n::1 localhost ip6-localhost\n${address.v4} ${name}\n${address.v6} ${name}\n`,
    );
  }

  /** Writes the pod's state to the store when it differs from what was written last. */
  #report(): void {
    this.#options.onChange();
    if (this.#phase === "stopped") return;
    const status = this.#status();
    const text = JSON.stringify(status);
    if (text === this.#written) return;
    this.#written = text;
    const { store } = this.#options;
    const { uid } = this;
    this.#writing = this.#writing.then(() =>
      store.patch(podKey(this.#pod), (pod) => {
        if (pod.kind !== "Pod" || pod.metadata.uid !== uid) return pod;
        const annotations = {
          ...pod.metadata.annotations,
          [NETNS_ANNOTATION]: netnsPath(this.#netns),
        };
        const metadata = this.hasOwnNetwork ? { ...pod.metadata, annotations } : pod.metadata;
        return { ...pod, metadata, status: { ...pod.status, ...status } };
      }),
    );
  }

  #status(): NonNullable<Pod["status"]> {
    const { node } = this.#options;
    const ips = this.entry().ips;
    const ready = this.#phase === "started" && this.#containers.every(isContainerReady);
    const condition = {
      type: "Ready",
      status: ready ? ("True" as const) : ("False" as const),
      ...(!ready && {
        reason: this.#phase === "started" ? "ContainersNotReady" : "WaitingForEnrolment",
      }),
    };
    return {
      phase: this.#phaseText(),
      ...(this.#phase !== "creating" && {
        podIP: ips[0],
        podIPs: ips.map((ip) => ({ ip })),
        hostIP: nodeAddress(node.number).v4,
      }),
      conditions: [condition],
      containerStatuses: this.#containers.map((container) => ({
        name: container.name,
        ready: isContainerReady(container),
        restartCount: container.process?.restarts ?? 0,
        ...(container.exitCode !== undefined && { lastExitCode: container.exitCode }),
      })),
    };
  }

  #phaseText(): "Pending" | "Running" | "Succeeded" | "Failed" {
    if (this.#phase !== "started") return "Pending";
    const ended = this.#containers.every(({ process }) => process?.state === "stopped");
    if (!ended) return "Running";
    return this.#containers.every(({ exitCode = 0 }) => exitCode === 0) ? "Succeeded" : "Failed";
  }
}

const RESTARTS: Readonly<Record<string, "always" | "on-failure" | "never">> = {
  Always: "always",
  OnFailure: "on-failure",
  Never: "never",
};

function isContainerReady({ process, probe }: RunningContainer): boolean {
  const runs = process === undefined || process.state === "running";
  return runs && (probe === undefined || probe.ready);
}

export function shapeOf({ spec }: Pod): string {
  return JSON.stringify([spec.containers, spec.hostNetwork === true, spec.nodeName]);
}

function etcFiles(home: Home, pod: Pod): { resolvConf: string; hosts: string } {
  const { namespace, name } = podKey(pod);
  return etcFilesOf(home, `${namespace}.${name}`);
}
