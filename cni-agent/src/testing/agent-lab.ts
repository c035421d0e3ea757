// A node with one pod "shop/cart", a store, the agent itself and a fake ztunnel, for tests that need root.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { Pod } from "@ambit/api/resources/kinds.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { type App, buildApp } from "../app.ts";
import { parseConfig } from "../config.ts";
import { CAPTURE_ANNOTATION, REDIRECTION_ANNOTATION } from "../mesh/annotator.ts";
import type { PodRedirection, RulesState } from "../rules/backend.ts";
import { NftablesBackend } from "../rules/nftables-backend.ts";
import { FakeZtunnel } from "./fake-ztunnel.ts";
import { createTestNetwork, type TestPlace } from "./test-network.ts";

const MODE = "istio.io/dataplane-mode";
export const POD = { kind: "Pod", namespace: "shop", name: "cart" } as const;
export const NAMESPACE = { kind: "Namespace", namespace: "", name: "shop" } as const;

export const ALL: PodRedirection = {
  dnsCapture: true,
  inboundCapture: true,
  virtualInterfaces: [],
  ipv6: true,
};

/** For `expect.poll`: events come within milliseconds, retries of the agent within seconds. */
const SOON = { timeout: 8_000, interval: 5 };

export interface PodChanges {
  readonly uid?: string;
  readonly phase?: "Succeeded";
  readonly ips?: readonly Ip[];
  readonly netns?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export class AgentLab {
  readonly #folder = mkdtempSync(join(tmpdir(), "ambit-agent-"));
  readonly network = createTestNetwork();
  readonly store = new FolderStore(join(this.#folder, "manifests"));
  readonly backend = new NftablesBackend({
    hostNetns: this.network.node.netns,
    probeUid: undefined,
  });
  readonly #ztunnels: FakeZtunnel[] = [];
  #app: App | undefined;
  /** What the agent started last has logged. */
  lines: string[] = [];

  /** The pod is there, not selected for the mesh, and no agent runs. */
  static async create(): Promise<AgentLab> {
    const lab = new AgentLab();
    await lab.store.put({ apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } });
    await lab.putPod(lab.network.pod);
    return lab;
  }

  get app(): App {
    return this.#app!;
  }

  async remove(): Promise<void> {
    for (const ztunnel of this.#ztunnels) ztunnel.close();
    await this.#app?.stop();
    this.network.remove();
    rmSync(this.#folder, { recursive: true });
  }

  /** As its runtime would write it; `changes` may take away what is not known yet. */
  async putPod(place: TestPlace, changes: PodChanges = {}) {
    const ips = changes.ips ?? [place.ip4, place.ip6];
    await this.store.put({
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name: "cart",
        namespace: "shop",
        uid: changes.uid ?? "uid-1",
        annotations: { "ambit.io/netns": changes.netns ?? place.path, ...changes.annotations },
      },
      spec: { nodeName: "node-1", serviceAccountName: "cart", containers: [{ name: "app" }] },
      status: {
        phase: changes.phase ?? "Running",
        ...(ips.length > 0 && { podIP: ips[0] }),
        podIPs: ips.map((ip) => ({ ip })),
      },
    });
  }

  async startAgent(env: Record<string, string> = {}): Promise<void> {
    const memory = memoryLog("info");
    this.lines = memory.lines;
    const config = parseConfig({
      NODE_NAME: "node-1",
      MANIFESTS: this.store.folder,
      ZDS_ADDRESS: this.#socketPath,
      HOST_NETNS: this.network.node.path,
      BIND_ADDRESS: "127.0.0.1",
      METRICS_PORT: "0",
      HEALTH_PORT: "0",
      UNENROLMENT_DRAIN: "0s",
      REDIRECTION: "nftables",
      ...env,
    });
    this.#app = await buildApp(config, memory.log);
  }

  startZtunnel(options: { readonly hello?: Uint8Array } = {}): FakeZtunnel {
    const ztunnel = new FakeZtunnel(this.#socketPath, options);
    this.#ztunnels.push(ztunnel);
    return ztunnel;
  }

  /** An enrolled pod with a connected ztunnel. */
  async enrolled(env: Record<string, string> = {}): Promise<FakeZtunnel> {
    await this.setMode("ambient");
    await this.startAgent(env);
    const connected = this.startZtunnel();
    await this.untilRedirection("enabled");
    return connected;
  }

  async setMode(mode: string | undefined): Promise<void> {
    await this.store.patch(NAMESPACE, (namespace) => ({
      ...namespace,
      metadata: { ...namespace.metadata, labels: mode === undefined ? {} : { [MODE]: mode } },
    }));
  }

  async setAnnotation(key: string, value: string): Promise<void> {
    await this.store.patch(POD, (resource) => ({
      ...resource,
      metadata: {
        ...resource.metadata,
        annotations: { ...resource.metadata.annotations, [key]: value },
      },
    }));
  }

  get redirection(): string | undefined {
    return this.#annotation(REDIRECTION_ANNOTATION);
  }

  get capture(): string | undefined {
    return this.#annotation(CAPTURE_ANNOTATION);
  }

  untilRedirection(expected: string | undefined): Promise<void> {
    return expect.poll(() => this.redirection, SOON).toBe(expected);
  }

  untilCapture(expected: string | RegExp): Promise<void> {
    return expect.poll(() => this.capture, SOON).toMatch(expected);
  }

  rules(): Promise<RulesState> {
    return this.backend.verify(this.network.pod.netns, ALL);
  }

  untilRules(expected: RulesState): Promise<void> {
    return expect.poll(() => this.rules(), SOON).toBe(expected);
  }

  async exempt(): Promise<Ip[]> {
    return [...(await this.backend.readHost()).keys()];
  }

  /** The agent's metrics as text. */
  async metrics(): Promise<string> {
    return await (await fetch(`http://127.0.0.1:${this.app.metricsPort}/metrics`)).text();
  }

  get #socketPath(): string {
    return join(this.#folder, "zds.sock");
  }

  #annotation(key: string): string | undefined {
    const pod: Pod | undefined = this.store.get(POD);
    return pod?.metadata.annotations?.[key];
  }
}
