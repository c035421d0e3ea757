// The control plane of the scale bench: model, store and delta server, fed with events directly.

import { ServerCredentials } from "@grpc/grpc-js";
import { systemClock } from "@ambit/common/process/clock.ts";
import type { ResourceEvent } from "@ambit/common/resources/source.ts";
import { Log } from "@ambit/common/telemetry/log.ts";
import { allowAnyone, DeltaServer } from "@ambit/common/xds/delta-server.ts";
import { GrpcServer } from "@ambit/common/xds/grpc-server.ts";
import { ResourceStore } from "@ambit/common/xds/resource-store.ts";
import { ZTUNNEL_TYPES } from "@ambit/common/xds/resource-type.ts";
import { IstiodMetrics } from "../src/metrics.ts";
import { MeshModel } from "../src/model/mesh-model.ts";
import { SETTINGS } from "../src/testing/mesh-harness.ts";
import { cpuMs, cpuSince } from "./cpu.ts";
import { type Proxies, preciseNowMs } from "./proxies.ts";

/** What one change cost. */
export interface Change {
  readonly translateMs: number;
  readonly cpuMs: number;
  readonly resources: number;
  readonly slowestMs: number;
}

export class BenchMesh {
  readonly #model = new MeshModel(SETTINGS);
  readonly #store = new ResourceStore(ZTUNNEL_TYPES);

  /** Events to pushed resources, as the pusher does after its debounce. */
  apply(events: readonly ResourceEvent[]): number {
    for (const event of events) this.#model.apply(event);
    const changed = this.#model.flush();
    this.#model.takeStatuses();
    for (const change of changed.toReversed()) this.#store.apply(change);
    return changed.reduce((sum, { upserts, removed }) => sum + upserts.length + removed.length, 0);
  }

  listen(): Promise<GrpcServer> {
    const delta = new DeltaServer({
      store: this.#store,
      clock: systemClock,
      random: Math.random,
      log: new Log({ level: "warn" }).scope("xds"),
      observer: new IstiodMetrics("bench"),
    });
    return GrpcServer.listen({
      name: "xDS",
      host: "127.0.0.1",
      port: 0,
      credentials: ServerCredentials.createInsecure(),
      register: (server) => delta.register(server, allowAnyone),
      clock: systemClock,
    });
  }

  /** One change after the other, each until every proxy has it. */
  async measureChanges(
    proxies: Proxies,
    proxyCount: number,
    count: number,
    eventOf: (i: number) => ResourceEvent,
  ): Promise<Change[]> {
    const measured: Change[] = [];
    for (let i = 0; i < count; i++) {
      const event = eventOf(i);
      const startMs = preciseNowMs();
      const start = process.cpuUsage();
      let resources = 0;
      const translateMs = cpuMs(() => (resources = this.apply([event])));
      const atMs = await proxies.received(proxyCount * resources);
      measured.push({ translateMs, resources, slowestMs: atMs - startMs, cpuMs: cpuSince(start) });
    }
    return measured;
  }
}
