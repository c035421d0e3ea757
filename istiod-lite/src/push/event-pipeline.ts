// The way of an event from its source to the model: mesh configuration is taken out first, hidden namespaces
// are left out, pods are noted for the node authorizer, hosts get their addresses.

import type {
  ResourceEvent,
  ResourceHandler,
  SourceProblem,
} from "@ambit/common/resources/source.ts";
import type { MeshConfig } from "../mesh-config/mesh-config.ts";
import { NamespaceFilter } from "../model/namespace-filter.ts";
import type { MeshSettings } from "../translate/settings.ts";
import type { VipAllocator } from "../vips/vip-allocator.ts";
import type { MeshPusher } from "./mesh-pusher.ts";
import type { PodDirectory } from "./pod-directory.ts";

/** The part of the pipeline that may know better what holds in the mesh. */
interface ConfigTaker {
  apply(events: readonly ResourceEvent[]): void;
}

export interface EventPipelineOptions {
  /** What holds as long as the mesh configuration does not say otherwise. */
  readonly settings: MeshSettings;
  readonly pods: PodDirectory;
  readonly vips: VipAllocator;
  readonly pusher: MeshPusher;
}

export class EventPipeline implements ResourceHandler {
  readonly #options: EventPipelineOptions;
  readonly #filter: NamespaceFilter;
  #taker: ConfigTaker | undefined;
  #sourceProblems: readonly SourceProblem[] = [];
  #configProblems: readonly SourceProblem[] = [];
  #trustDomain: string;

  constructor(options: EventPipelineOptions) {
    this.#options = options;
    this.#filter = new NamespaceFilter(options.settings.rootNamespace);
    this.#trustDomain = options.settings.trustDomain;
  }

  /** Of identities issued now. */
  get trustDomain(): string {
    return this.#trustDomain;
  }

  /** `taker` sees every event before the mesh does. */
  configuredBy(taker: ConfigTaker): void {
    this.#taker = taker;
  }

  /** What holds from now on. */
  configure(config: MeshConfig): void {
    const { settings, pusher } = this.#options;
    this.#trustDomain = config.trustDomain ?? settings.trustDomain;
    pusher.configure({
      rootNamespace: config.rootNamespace ?? settings.rootNamespace,
      trustDomain: this.#trustDomain,
      sameNode: config.sameNode,
      serviceEntryVisibility: config.serviceEntryVisibility,
    });
    this.#pass(this.#filter.select(config.discoverySelectors ?? []));
  }

  onEvents(events: readonly ResourceEvent[]): void {
    this.#taker?.apply(events);
    this.#pass(this.#filter.apply(events));
  }

  onProblems(problems: readonly SourceProblem[]): void {
    this.#sourceProblems = problems;
    this.#report();
  }

  /** Those of the mesh configuration. */
  onConfigProblems(problems: readonly SourceProblem[]): void {
    this.#configProblems = problems;
    this.#report();
  }

  #pass(events: readonly ResourceEvent[]): void {
    const { pods, vips, pusher } = this.#options;
    for (const event of events) pods.apply(event);
    pusher.onEvents(vips.apply(events));
  }

  #report(): void {
    this.#options.pusher.onProblems([...this.#sourceProblems, ...this.#configProblems]);
  }
}
