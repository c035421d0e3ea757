// The local mesh as one thing that is started and stopped: wires, programs, pods. Owns everything that
// exists while it runs, and removes what an earlier run that was killed left behind.

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { type Clock, sleep, type Timer } from "@ambit/common/process/clock.ts";
import { errorCode, errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { FolderSource } from "@ambit/common/resources/folder-source.ts";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { ensureBpffs } from "@ambit/common/sys/bpffs.ts";
import { type NetnsHandle, openNetns } from "@ambit/common/sys/netns.ts";
import { httpInNetns } from "../netns-http.ts";
import { ISTIOD, nodeAddress, nodeGateway, podBlocks } from "./addresses.ts";
import { applyResources } from "./apply.ts";
import { ClusterView } from "./cluster-view.ts";
import {
  cniAgent,
  type Component,
  istiod,
  mayUseEbpf,
  type MeshOptions,
  REPOSITORY,
  SYSTEM_NAMESPACE,
  ZTUNNEL_ACCOUNT,
  ztunnel,
  ztunnelPodName,
  ztunnelTokenFile,
} from "./components.ts";
import { enterCommand } from "./enter.ts";
import { etcFilesOf } from "./etc-files.ts";
import { fabricNetns, type Home, netnsPath, nodeNetns } from "./home.ts";
import { Kubelet, type NodePlace } from "./kubelet.ts";
import { findLeftovers, removeLeftovers } from "./leftovers.ts";
import { resolveName } from "./names.ts";
import {
  createNodeCgroups,
  enterKubeletCgroup,
  findMeshCgroups,
  removeBpffs,
  removeCgroup,
} from "./node-cgroups.ts";
import { isReady, isStatic, isTerminal } from "./pod-facts.ts";
import { type Resolver, startResolver } from "./resolver.ts";
import { readRunFile, type RunFile, startTicks, writeRunFile } from "./run-file.ts";
import { seedResources } from "./seed.ts";
import { SupervisedProcess } from "./supervised-process.ts";
import { TOKEN_TTL_SECONDS, TokenIssuer } from "./tokens.ts";
import { BRIDGE, createFabric, createNode } from "./topology.ts";

export interface MeshDependencies {
  readonly home: Home;
  readonly clock: Clock;
  readonly random: () => number;
  /** Variables of the environment that the mesh's own programs have, besides what they are given here. */
  readonly settings: NodeJS.ProcessEnv;
  /** The few variables that the processes of pods inherit. */
  readonly podEnv: NodeJS.ProcessEnv;
  /** One line for the person who waits. */
  readonly report: (line: string) => void;
}

/** Says that a folder is ours to empty. */
const MARKER = ".ambit-local";
const READY_POLL_MS = 50;
const COMPONENT_READY_TIMEOUT_MS = 30_000;
const PODS_READY_TIMEOUT_MS = 60_000;
/** A program that ended so often will not start: what it said last is why. */
const START_ATTEMPTS_MAX = 4;
/** On the way down nobody waits for the grace periods of manifests. */
const STOP_GRACE_MS = 1_000;

interface RunningComponent {
  readonly component: Component;
  readonly process: SupervisedProcess;
}

export class LocalMesh {
  readonly #dependencies: MeshDependencies;
  readonly #options: MeshOptions;
  readonly #nodes: readonly NodePlace[];
  readonly #view = new ClusterView();
  readonly #components: RunningComponent[] = [];
  readonly #resolvers: Resolver[] = [];
  readonly #handles: NetnsHandle[] = [];
  /** Nodes that have cgroups of their own. */
  readonly #ebpfNodes = new Set<string>();
  /** While this process plays the kubelet of nodes that may use eBPF. */
  #asKubelet: Disposable | undefined;
  readonly #startedAt = new Date().toISOString();
  #source: FolderSource | undefined;
  #kubelet: Kubelet | undefined;
  #tokens: Timer | undefined;
  #runFile: Timer | undefined;
  #state: RunFile["state"] = "starting";
  #changed = Promise.withResolvers<void>();

  constructor(options: MeshOptions, dependencies: MeshDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#nodes = Array.from({ length: options.nodes }, (_, i) => {
      const name = `node-${i + 1}`;
      return { name, number: i + 1, netns: nodeNetns(dependencies.home, name) };
    });
  }

  get view(): ClusterView {
    return this.#view;
  }

  /** Brings everything up and resolves when every program and pod is ready; stops early when aborted. */
  async start(resources: readonly Resource[], signal: AbortSignal): Promise<void> {
    const { home, clock, settings, report } = this.#dependencies;
    const began = clock.monotonicMs();
    await this.#prepare();
    signal.throwIfAborted();
    await this.#wire();
    signal.throwIfAborted();
    const store = new FolderStore(home.manifests);
    for (const resource of seedResources(this.#nodes)) await store.put(resource);
    await applyResources(store, resources);
    await this.#writeTokens(store);
    this.#run(istiod(home, settings));
    for (const node of this.#nodes) this.#run(cniAgent(home, node, this.#options));
    await this.#startPods(store);
    await this.#awaitComponents(signal);
    report("istiod-lite and the node agents are ready");
    for (const node of this.#nodes) this.#run(ztunnel(home, node, this.#options, settings));
    await this.#awaitComponents(signal);
    report("ztunnel is ready on every node");
    await this.#awaitPods(signal);
    this.#state = "ready";
    this.#writeRunFile();
    const seconds = ((clock.monotonicMs() - began) / 1000).toFixed(1);
    report(`the mesh is ready after ${seconds} s`);
  }

  /** Removes everything; safe at any moment of the start, and more than once. */
  async stop(): Promise<void> {
    const { home } = this.#dependencies;
    this.#state = "stopping";
    this.#tokens?.cancel();
    this.#source?.close();
    await Promise.all([
      this.#kubelet?.stop(STOP_GRACE_MS) ?? Promise.resolve(),
      ...this.#components.map(({ process }) => process.stop(STOP_GRACE_MS)),
    ]);
    for (const resolver of this.#resolvers.splice(0)) resolver.close();
    for (const handle of this.#handles.splice(0)) handle.close();
    this.#runFile?.cancel();
    await removeLeftovers(findLeftovers(home.prefix));
    this.#asKubelet?.[Symbol.dispose]();
    await removeKernelState(home);
    clearHome(home, { keepLogs: true });
  }

  async #prepare(): Promise<void> {
    const { home, report } = this.#dependencies;
    const cleaned = await cleanUp(home);
    if (cleaned !== undefined) report(cleaned);
    prepareHome(home);
    clearHome(home, { keepLogs: false });
    for (const folder of [home.manifests, home.logs, home.ca, home.tokens, home.etc, home.zds]) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    }
    this.#writeRunFile();
  }

  async #wire(): Promise<void> {
    const { home, report } = this.#dependencies;
    const { nodes } = this.#options;
    const fabric = fabricNetns(home);
    await createFabric(fabric, nodes);
    for (const node of this.#nodes) {
      await createNode({ fabric, netns: node.netns }, node.number, nodes);
      const handle = openNetns(netnsPath(node.netns));
      this.#handles.push(handle);
      if (mayUseEbpf(this.#options, node.name)) this.#prepareForEbpf(node);
      this.#resolvers.push(
        startResolver(handle.fd, nodeGateway(node.number).v4, (name, family) =>
          resolveName(this.#view, name, family),
        ),
      );
    }
    report(`${nodes} node${nodes === 1 ? "" : "s"} wired to the fabric`);
  }

  /** Best effort: where something is missing, the node agent says what, and what it does instead. */
  #prepareForEbpf({ name }: NodePlace): void {
    const { home, report } = this.#dependencies;
    try {
      createNodeCgroups(home, name);
      ensureBpffs(home.bpf);
      this.#ebpfNodes.add(name);
    } catch (error) {
      return report(`${name} is not prepared for eBPF: ${errorMessage(error)}`);
    }
    this.#playKubelet();
  }

  /** Best effort, too: else probes are known by address. */
  #playKubelet(): void {
    const { home, report } = this.#dependencies;
    try {
      this.#asKubelet ??= enterKubeletCgroup(home);
    } catch (error) {
      report(`probes have no cgroup of their own: ${errorMessage(error)}`);
    }
  }

  async #startPods(store: FolderStore): Promise<void> {
    const { home, clock, random, podEnv, report } = this.#dependencies;
    const kubelet = new Kubelet({
      home,
      store,
      view: this.#view,
      clock,
      random,
      nodes: this.#nodes,
      workingDir: REPOSITORY,
      env: podEnv,
      hasCgroup: (node) => this.#ebpfNodes.has(node),
      onChange: () => this.#onChange(),
      onProblem: (sentence) => report(`problem: ${sentence}`),
    });
    this.#kubelet = kubelet;
    this.#source = new FolderSource([home.manifests], clock);
    await this.#source.start({
      onEvents: (events) => {
        this.#view.apply(events);
        this.#onChange();
        kubelet.reconcile();
      },
      onProblems: () => undefined,
    });
  }

  #run(component: Component): void {
    const { home, clock, settings } = this.#dependencies;
    const { name, node, netns, command, log } = component;
    const files = this.#writeEtc(node);
    const cgroup = this.#ebpfNodes.has(node ?? "") ? component.cgroup : undefined;
    const spec = {
      command: enterCommand({ netns, ...files, workingDir: home.root, cgroup }, command),
      env: { ...settings, ...component.env },
      log,
      restart: "always" as const,
    };
    const where = node === undefined ? name : `${name} on ${node}`;
    const running = {
      component,
      process: new SupervisedProcess(spec, clock, {
        onChange: () => this.#onChange(),
        onExit: (code) =>
          this.#dependencies.report(`${where} ended with code ${code}, starting it again`),
      }),
    };
    this.#components.push(running);
    running.process.start();
  }

  /** Components see the node's name server too: ztunnel forwards what it does not know to it. */
  #writeEtc(nodeName: string | undefined): { resolvConf: string; hosts: string } {
    const files = etcFilesOf(this.#dependencies.home, nodeName ?? "fabric");
    const node = this.#nodes.find(({ name }) => name === nodeName);
    const server = node === undefined ? "" : `nameserver ${nodeGateway(node.number).v4}\n`;
    writeFileSync(files.resolvConf, server);
    writeFileSync(files.hosts, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
    return files;
  }

  /** Writes every ztunnel its token, now and well before it expires. */
  async #writeTokens(store: FolderStore): Promise<void> {
    const { home, clock } = this.#dependencies;
    const issuer = await TokenIssuer.create(home.jwks, clock);
    const renew = async (): Promise<void> => {
      for (const node of this.#nodes) {
        const podName = ztunnelPodName(node);
        const pod = store.get({ kind: "Pod", namespace: SYSTEM_NAMESPACE, name: podName });
        const subject = {
          namespace: SYSTEM_NAMESPACE,
          serviceAccount: ZTUNNEL_ACCOUNT,
          podName,
          podUid: pod?.metadata.uid ?? "",
          nodeName: node.name,
        };
        await issuer.write(subject, ztunnelTokenFile(home, node));
      }
      this.#tokens = clock.after((TOKEN_TTL_SECONDS * 1000) / 2, () => void renew());
    };
    await renew();
  }

  async #awaitComponents(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#components.map((running) => this.#awaitComponent(running, signal)));
  }

  async #awaitComponent(running: RunningComponent, signal: AbortSignal): Promise<void> {
    const { component } = running;
    const { clock } = this.#dependencies;
    const { name, node, netns, ready, log } = component;
    const deadlineMs = clock.monotonicMs() + COMPONENT_READY_TIMEOUT_MS;
    const target = { netns: netnsPath(netns), ip: ready.ip, port: ready.port };
    for (;;) {
      signal.throwIfAborted();
      const answer = await httpInNetns(target, ready.path, { timeoutMs: 2_000 }).catch(
        () => undefined,
      );
      if (answer?.status === 200) return;
      const where = node === undefined ? name : `${name} on ${node}`;
      if (running.process.restarts >= START_ATTEMPTS_MAX) {
        throw new UserError(`${where} cannot start: ${lastWords(log)}; its log is ${log}`);
      }
      if (clock.monotonicMs() > deadlineMs) {
        const why = answer === undefined ? "it does not answer" : answer.body.trim();
        throw new UserError(
          `${where} is not ready after ${COMPONENT_READY_TIMEOUT_MS / 1000} s: ${why}; its log is ${log}`,
        );
      }
      await sleep(clock, READY_POLL_MS, signal);
    }
  }

  async #awaitPods(signal: AbortSignal): Promise<void> {
    const { clock } = this.#dependencies;
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(PODS_READY_TIMEOUT_MS)]);
    const late = () => this.#unreadyPods();
    while (late().length > 0 && !deadline.aborted) {
      const changed = this.#changed.promise;
      await Promise.race([changed, sleep(clock, PODS_READY_TIMEOUT_MS, deadline)]);
    }
    signal.throwIfAborted();
    const names = late();
    if (names.length === 0) return;
    throw new UserError(
      `not ready after ${PODS_READY_TIMEOUT_MS / 1000} s: ${names.join(", ")}; see "ambit local logs POD.NAMESPACE"`,
    );
  }

  #unreadyPods(): string[] {
    const pods = this.#view.list("Pod").filter((pod) => !isStatic(pod) && !isTerminal(pod));
    const late = pods
      .filter((pod) => !isReady(pod))
      .map(({ metadata }) => `pod ${metadata.namespace}/${metadata.name}`);
    const short = this.#view.list("Deployment").filter((deployment) => {
      const { status } = deployment as { status?: { readyReplicas?: number } };
      return (status?.readyReplicas ?? 0) < deployment.spec.replicas;
    });
    const missing = short.map(
      ({ metadata }) => `deployment ${metadata.namespace}/${metadata.name}`,
    );
    return late.length > 0 ? late : missing;
  }

  /** Wakes whoever waits, and writes run.json once for all changes of a moment. */
  #onChange(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
    if (this.#state === "stopping") return;
    this.#runFile ??= this.#dependencies.clock.after(RUN_FILE_DELAY_MS, () => {
      this.#runFile = undefined;
      if (this.#state !== "stopping") this.#writeRunFile();
    });
  }

  #writeRunFile(): void {
    const { home } = this.#dependencies;
    const { redirection, sameNode } = this.#options;
    const fabric = fabricNetns(home);
    writeRunFile(home, {
      version: 1,
      pid: process.pid,
      startTicks: startTicks(process.pid) ?? "",
      startedAt: this.#startedAt,
      state: this.#state,
      redirection,
      sameNode,
      fabric: { netns: fabric, link: BRIDGE, ips: [ISTIOD.v4, ISTIOD.v6] },
      nodes: this.#nodes.map(({ name, number, netns }) => ({
        name,
        netns,
        link: `node${number}`,
        ips: Object.values(nodeAddress(number)),
        podCidrs: Object.values(podBlocks(number)),
      })),
      components: this.#components.map(({ component, process: running }) => ({
        name: component.name,
        ...(component.node !== undefined && { node: component.node }),
        netns: component.netns,
        ...(running.pid !== undefined && { pid: running.pid }),
        state: running.state,
        restarts: running.restarts,
        log: component.log,
      })),
      pods: this.#kubelet?.pods ?? [],
    });
  }
}

const RUN_FILE_DELAY_MS = 20;

/** Of a program's log: the last line that names an error, else the last. */
function lastWords(log: string): string {
  const lines = readFileSync(log, "utf8").trimEnd().split("\n");
  const error = lines.findLast((line) => /error:/i.test(line));
  return (error ?? lines.at(-1) ?? "").trim() || "it says nothing";
}

/** Removes what a run that was killed left; tells what it was, or undefined when there was nothing. */
export async function cleanUp(home: Home): Promise<string | undefined> {
  const run = readRunFile(home);
  const recorded = run === undefined ? [] : [run.fabric, ...run.nodes, ...run.pods];
  const found = findLeftovers(
    home.prefix,
    recorded.map(({ netns }) => netns),
  );
  await removeLeftovers(found);
  await removeKernelState(home);
  const { netns, pids } = found;
  if (netns.length === 0) return undefined;
  return `removed what an earlier run left: ${netns.length} namespaces, ${pids.length} processes`;
}

/** Programs, maps and cgroups, once nothing runs that uses them. */
async function removeKernelState(home: Home): Promise<void> {
  for (const folder of findMeshCgroups(home)) await removeCgroup(folder);
  removeBpffs(home.bpf);
}

/** Makes the state folder ours. One that holds something else is not ours to empty. */
export function prepareHome(home: Home): void {
  if (!isOurFolder(home)) {
    throw new UserError(
      `${home.root} holds something else than a mesh's state: set AMBIT_HOME to an empty or new folder`,
    );
  }
  mkdirSync(home.root, { recursive: true, mode: 0o700 });
  writeFileSync(join(home.root, MARKER), "");
}

/** True when the folder is ours, empty, or not there. */
export function isOurFolder(home: Home): boolean {
  try {
    const entries = readdirSync(home.root);
    return entries.length === 0 || entries.includes(MARKER);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return true;
    throw error;
  }
}

/** Empties the state folder. Logs stay after a stop: they may say why. */
export function clearHome(home: Home, { keepLogs }: { keepLogs: boolean }): void {
  const { manifests, runFile, ca, tokens, jwks, etc, zds, logs } = home;
  for (const path of [manifests, runFile, ca, tokens, jwks, etc, zds]) {
    rmSync(path, { recursive: true, force: true });
  }
  if (!keepLogs) rmSync(logs, { recursive: true, force: true });
}
