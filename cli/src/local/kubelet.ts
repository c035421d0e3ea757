// Brings what runs on this machine in line with what the store says, again and again: Service addresses,
// the pods of Deployments, nodes for pods, runners for pods, and the nodes' Service rules. Owns the
// runners and the pod addresses.

import type { Pod, Resource } from "@ambit/api/resources/kinds.ts";
import type { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { type Clock, type Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { keyOf } from "@ambit/common/resources/source.ts";
import { POD_HOST_MAX, POD_HOST_MIN, podAddress } from "./addresses.ts";
import type { ClusterView } from "./cluster-view.ts";
import { nftLoad } from "./command.ts";
import type { Home } from "./home.ts";
import { isEnrolled, isReady, isStatic, isTerminal, podKey, wantsMesh } from "./pod-facts.ts";
import { PodRunner, shapeOf } from "./pod-runner.ts";
import type { PodEntry } from "./run-file.ts";
import { chooseNode, ownerOf, planPods } from "./scheduling.ts";
import { assignServiceIps, renderServiceRules } from "./services.ts";

export interface NodePlace {
  readonly name: string;
  readonly number: number;
  readonly netns: string;
}

export interface KubeletOptions {
  readonly home: Home;
  readonly store: FolderStore;
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly random: () => number;
  readonly nodes: readonly NodePlace[];
  readonly workingDir: string;
  readonly env: NodeJS.ProcessEnv;
  /** Whether pods of a node run in cgroups of their own. */
  hasCgroup(node: string): boolean;
  /** A pod or its programs changed. */
  onChange(): void;
  /** Something cannot be done; it is tried again. */
  onProblem(sentence: string): void;
}

/** After a failure (a full disk, a missing program) the same is tried again this much later. */
const RETRY_MS = 1_000;

export class Kubelet {
  readonly #options: KubeletOptions;
  readonly #runners = new Map<string, PodRunner>();
  /** Pod addresses in use: "node/host". */
  readonly #hosts = new Map<string, string>();
  readonly #nextHost = new Map<string, number>();
  /** Pods written to the store that its watch has not shown yet. */
  readonly #created = new Map<string, Pod>();
  readonly #leaving = new Map<string, Promise<void>>();
  #rules = "";
  /** The last failure told: the same one again is not news. */
  #problem = "";
  #loop: Promise<void> | undefined;
  #again = false;
  #stopped = false;
  #retry: Timer | undefined;

  constructor(options: KubeletOptions) {
    this.#options = options;
  }

  get pods(): PodEntry[] {
    return [...this.#runners.values()].map((runner) => runner.entry());
  }

  /** Asks for a pass; passes never overlap, and requests during one lead to one more. */
  reconcile(): void {
    this.#again = true;
    if (this.#stopped) return;
    this.#loop ??= this.#passes().finally(() => (this.#loop = undefined));
  }

  /** Ends every pod; nothing is started any more. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    this.#retry?.cancel();
    await this.#loop;
    for (const key of this.#runners.keys()) this.#remove(key, graceMs);
    await Promise.all(this.#leaving.values());
  }

  async #passes(): Promise<void> {
    while (this.#again && !this.#stopped) {
      this.#again = false;
      try {
        await this.#pass();
      } catch (error) {
        this.#failed(error);
      }
    }
  }

  #failed(error: unknown): void {
    const sentence = errorMessage(error);
    if (sentence !== this.#problem) this.#options.onProblem(sentence);
    this.#problem = sentence;
    this.#retry?.cancel();
    this.#retry = this.#options.clock.after(RETRY_MS, () => this.reconcile());
  }

  async #pass(): Promise<void> {
    await this.#assignServiceIps();
    const pods = this.#knownPods();
    await this.#planDeployments(pods);
    await this.#assignNodes(pods);
    this.#runPods();
    await this.#translateServices();
    await this.#reportDeployments();
  }

  async #assignServiceIps(): Promise<void> {
    const { store, view } = this.#options;
    for (const service of assignServiceIps(view.list("Service"))) {
      const { clusterIP, clusterIPs } = service.spec;
      await store.patch(keyOf(service), (found): Resource => {
        if (found.kind !== "Service") return found;
        return { ...found, spec: { ...found.spec, clusterIP, clusterIPs } };
      });
    }
  }

  /** The pods of the view, and those just written that it does not show yet. */
  #knownPods(): Pod[] {
    const { store, view } = this.#options;
    const shown = view.list("Pod");
    for (const { metadata } of shown)
      this.#created.delete(`${metadata.namespace}/${metadata.name}`);
    for (const [key, pod] of this.#created) {
      if (store.get(podKey(pod)) === undefined) this.#created.delete(key);
    }
    return [...shown, ...this.#created.values()];
  }

  async #planDeployments(pods: Pod[]): Promise<void> {
    const { store, view, random } = this.#options;
    const plan = planPods(view.list("Deployment"), pods, random);
    for (const pod of plan.remove) await store.delete(podKey(pod));
    for (const pod of plan.create) {
      const placed = this.#place(pod, pods);
      await store.put(placed);
      pods.push(placed);
      this.#created.set(`${pod.metadata.namespace}/${pod.metadata.name}`, placed);
    }
  }

  #place(pod: Pod, pods: readonly Pod[]): Pod {
    const names = this.#options.nodes.map(({ name }) => name);
    const nodeName = pod.spec.nodeName ?? chooseNode(pod, names, pods);
    return { ...pod, spec: { ...pod.spec, nodeName } };
  }

  async #assignNodes(pods: readonly Pod[]): Promise<void> {
    const unplaced = pods.filter((pod) => pod.spec.nodeName === undefined && !isTerminal(pod));
    for (const pod of unplaced) {
      const { nodeName } = this.#place(pod, pods).spec;
      pod.spec.nodeName = nodeName;
      await this.#options.store.patch(podKey(pod), (found) =>
        found.kind === "Pod" ? { ...found, spec: { ...found.spec, nodeName } } : found,
      );
    }
  }

  /** Starts, updates and ends runners. Pods that are made anew first leave, then come back. */
  #runPods(): void {
    const { view, nodes } = this.#options;
    const wanted = new Map<string, Pod>();
    for (const pod of view.list("Pod")) {
      if (isStatic(pod) || pod.spec.nodeName === undefined) continue;
      wanted.set(`${pod.metadata.namespace}/${pod.metadata.name}`, pod);
    }
    for (const [key, runner] of this.#runners) {
      const pod = wanted.get(key);
      const same = pod?.metadata.uid === runner.uid && pod && shapeOf(pod) === runner.shape;
      if (!same) this.#remove(key);
    }
    for (const [key, pod] of wanted) {
      const node = nodes.find(({ name }) => name === pod.spec.nodeName);
      const runner = this.#runners.get(key);
      if (runner !== undefined) {
        const namespace = view.get("Namespace", "", pod.metadata.namespace ?? "");
        runner.update(pod, isEnrolled(pod) || !wantsMesh(pod, namespace));
      } else if (node !== undefined && !isTerminal(pod) && !this.#leaving.has(key)) {
        this.#add(key, pod, node);
      }
    }
  }

  #add(key: string, pod: Pod, node: NodePlace): void {
    const { home, store, clock, workingDir, env } = this.#options;
    const host = this.#takeHost(node.name, key);
    const onChange = () => this.#options.onChange();
    const runner = new PodRunner(
      {
        home,
        store,
        clock,
        node,
        address: podAddress(node.number, host),
        link: `veth${host}`,
        workingDir,
        env,
        hasCgroup: this.#options.hasCgroup(node.name),
        onChange,
      },
      pod,
    );
    this.#runners.set(key, runner);
    const created = runner.create().catch((error: unknown) => {
      this.#failed(new Error(`pod ${key} cannot be set up: ${errorMessage(error)}`));
      this.#remove(key);
    });
    void created.then(() => this.reconcile());
  }

  #remove(key: string, graceMs?: number): void {
    const runner = this.#runners.get(key);
    if (runner === undefined) return;
    this.#runners.delete(key);
    const left = runner
      .stop(graceMs)
      .catch((error: unknown) => this.#options.onProblem(`pod ${key}: ${errorMessage(error)}`))
      .then(() => {
        this.#leaving.delete(key);
        for (const [place, owner] of this.#hosts) if (owner === key) this.#hosts.delete(place);
        this.#options.onChange();
        this.reconcile();
      });
    this.#leaving.set(key, left);
  }

  /** The next free host number of a node; numbers rest before they are used again. */
  #takeHost(node: string, key: string): number {
    const count = POD_HOST_MAX - POD_HOST_MIN + 1;
    const from = this.#nextHost.get(node) ?? 0;
    for (let i = 0; i < count; i++) {
      const host = POD_HOST_MIN + ((from + i) % count);
      if (this.#hosts.has(`${node}/${host}`)) continue;
      this.#hosts.set(`${node}/${host}`, key);
      this.#nextHost.set(node, (from + i + 1) % count);
      return host;
    }
    throw new Error(`${node} is full: it has ${count} pods`);
  }

  async #translateServices(): Promise<void> {
    const { view, nodes } = this.#options;
    const pods = view.list("Pod").filter((pod) => !isStatic(pod));
    const rules = renderServiceRules(view.list("Service"), pods, view.list("EndpointSlice"));
    if (rules === this.#rules) return;
    await Promise.all(nodes.map(({ netns }) => nftLoad(netns, rules)));
    this.#rules = rules;
  }

  async #reportDeployments(): Promise<void> {
    const { store, view } = this.#options;
    const ready = Map.groupBy(view.list("Pod").filter(isReady), ownerOf);
    for (const deployment of view.list("Deployment")) {
      const key = `${deployment.metadata.namespace}/${deployment.metadata.name}`;
      const { replicas } = deployment.spec;
      const readyReplicas = ready.get(key)?.length ?? 0;
      const { status } = deployment as { status?: { readyReplicas?: number; replicas?: number } };
      if (status?.readyReplicas === readyReplicas && status.replicas === replicas) continue;
      await store.patch(keyOf(deployment), (found) => ({
        ...found,
        status: { replicas, readyReplicas },
      }));
    }
  }
}
