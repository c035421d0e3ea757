// A control plane for whole ztunnel processes: the real delta server, reached from a namespace through a
// port there, with a mesh that the test changes while traffic runs.

import net from "node:net";
import type { Ip } from "@ambit/common/net/ip.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import { newStore, TestServer } from "@ambit/common/testing/xds-harness.ts";
import type { ResourceStore } from "@ambit/common/xds/resource-store.ts";
import {
  contentVersion,
  TYPE_ADDRESS,
  TYPE_AUTHORIZATION,
} from "@ambit/common/xds/resource-type.ts";
import { addressOnDemand } from "../src/testing/on-demand-resource.ts";
import { policyResource, serviceResource, workloadResource } from "../src/state/testing-mesh.ts";

const PORT = 15_010;

interface Resource {
  readonly name: string;
  readonly value: Uint8Array;
}

export class ControlPlane implements Disposable {
  readonly store: ResourceStore;
  readonly server: TestServer;
  readonly #forwarder: net.Server;
  /** What makes a ztunnel in that namespace use it. */
  readonly env = {
    XDS_ADDRESS: `http://127.0.0.1:${PORT}`,
    POD_NAME: "ztunnel",
    POD_NAMESPACE: "istio-system",
  };

  private constructor(store: ResourceStore, server: TestServer, netnsFd: number) {
    this.store = store;
    this.server = server;
    this.#forwarder = net.createServer((inside) => {
      const outside = net.connect(server.grpc.port, "127.0.0.1");
      for (const socket of [inside, outside]) socket.on("error", () => undefined);
      inside.pipe(outside).pipe(inside);
    });
    const address = { ip: "127.0.0.1" as Ip, port: PORT };
    this.#forwarder.listen({ fd: listenTcp(netnsFd, { address }) });
  }

  static async start(netnsFd: number): Promise<ControlPlane> {
    const store = newStore();
    return new ControlPlane(store, await TestServer.start(store), netnsFd);
  }

  workload(...described: Parameters<typeof workloadResource>): this {
    return this.#put(TYPE_ADDRESS, workloadResource(...described));
  }

  service(...described: Parameters<typeof serviceResource>): this {
    return this.#put(TYPE_ADDRESS, serviceResource(...described));
  }

  policy(...described: Parameters<typeof policyResource>): this {
    return this.#put(TYPE_AUTHORIZATION, policyResource(...described));
  }

  removePolicy(name: string): this {
    return this.#remove(TYPE_AUTHORIZATION, `ns/${name}`);
  }

  removeWorkload(name: string): this {
    return this.#remove(TYPE_ADDRESS, `c//Pod/ns/${name}`);
  }

  #put(typeUrl: string, { name, value }: Resource): this {
    const resource =
      typeUrl === TYPE_ADDRESS
        ? addressOnDemand({ name, value })
        : { name, value, version: contentVersion(value), aliases: [] };
    this.store.apply({ typeUrl, upserts: [resource], removed: [] });
    return this;
  }

  #remove(typeUrl: string, name: string): this {
    this.store.apply({ typeUrl, upserts: [], removed: [name] });
    return this;
  }

  [Symbol.dispose](): void {
    this.#forwarder.close();
    this.server.kill();
  }
}
