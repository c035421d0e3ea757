// For tests of the model: a mesh fed with YAML, and what a client of it would hold.

import { fromBinary } from "@bufbuild/protobuf";
import { type Authorization, AuthorizationSchema } from "@ambit/api/gen/istio/authorization_pb.ts";
import {
  type Address,
  AddressSchema,
  type Service,
  type Workload,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { assert } from "@ambit/common/process/assert.ts";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import { parseManifest } from "@ambit/common/resources/yaml-file.ts";
import {
  TYPE_ADDRESS,
  TYPE_AUTHORIZATION,
  type XdsResource,
} from "@ambit/common/xds/resource-type.ts";
import { MeshModel } from "../model/mesh-model.ts";
import type { ObjectStatus } from "../status/object-status.ts";
import type { MeshSettings } from "../translate/settings.ts";

/** Of a mesh whose operator has set nothing. */
export const SETTINGS: MeshSettings = {
  clusterId: "Kubernetes",
  clusterDomain: "cluster.local",
  trustDomain: "cluster.local",
  network: "",
  rootNamespace: "istio-system",
  dryRunPolicies: false,
  autoAllowWaypoints: false,
};

/** The objects of a manifest without mistakes. */
export function parse(yaml: string): readonly Resource[] {
  const { resources, problems } = parseManifest(yaml, "test.yaml");
  assert(problems.length === 0, `manifest: ${JSON.stringify(problems)}`);
  return resources;
}

export class MeshHarness {
  readonly model: MeshModel;
  readonly held = new Map<string, XdsResource>();
  /** Names that the last step upserted or removed. */
  pushed: string[] = [];
  /** What objects' authors were told last, by key. */
  readonly statuses = new Map<string, ObjectStatus>();

  constructor(settings: Partial<MeshSettings> = {}) {
    this.model = new MeshModel({ ...SETTINGS, ...settings });
  }

  apply(...yaml: string[]): this {
    return this.events(
      parse(yaml.join("\n---\n")).map((resource) => ({ type: "upsert", resource })),
    );
  }

  remove(...yaml: string[]): this {
    return this.events(
      parse(yaml.join("\n---\n")).map((resource) => ({ type: "delete", key: keyOf(resource) })),
    );
  }

  events(events: readonly ResourceEvent[]): this {
    for (const event of events) this.model.apply(event);
    return this.#push();
  }

  configure(changes: Partial<MeshSettings>): this {
    this.model.configure(changes);
    return this.#push();
  }

  #push(): this {
    this.pushed = [];
    for (const { typeUrl, upserts, removed } of this.model.flush()) {
      for (const name of removed) this.held.delete(`${typeUrl} ${name}`);
      for (const resource of upserts) this.held.set(`${typeUrl} ${resource.name}`, resource);
      this.pushed.push(...upserts.map(({ name }) => name), ...removed);
    }
    for (const status of this.model.takeStatuses()) this.statuses.set(keyText(status.key), status);
    return this;
  }

  /** Names of all addresses. */
  get addresses(): string[] {
    const names = [...this.held.keys()].filter((key) => key.startsWith(TYPE_ADDRESS));
    return names.map((key) => key.slice(TYPE_ADDRESS.length + 1)).sort();
  }

  resource(name: string): XdsResource | undefined {
    return this.held.get(`${TYPE_ADDRESS} ${name}`);
  }

  /** By uid without its cluster. */
  workload(uid: string): Workload {
    const type = this.address(`Kubernetes/${uid}`);
    assert(type.case === "workload", `${uid} is a workload`);
    return type.value;
  }

  pod(name: string): Workload {
    return this.workload(`/Pod/shop/${name}`);
  }

  service(name: string): Service {
    const type = this.address(name);
    assert(type.case === "service", `${name} is a service`);
    return type.value;
  }

  address(name: string): Address["type"] {
    const found = this.resource(name);
    assert(found !== undefined, `${name} is held, of ${this.addresses.join(", ")}`);
    return fromBinary(AddressSchema, found.value).type;
  }

  policy(name: string): Authorization | undefined {
    const found = this.held.get(`${TYPE_AUTHORIZATION} ${name}`);
    return found && fromBinary(AuthorizationSchema, found.value);
  }

  /** Everything held, with versions: equal meshes have equal snapshots. */
  snapshot(): string[] {
    return [...this.held].map(([key, { version }]) => `${key}@${version}`).sort();
  }
}

/** A ready, enrolled pod of namespace shop with a container port named web; its address is of its name. */
export function podYaml(name: string, labels = "app: a"): string {
  return `
apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: shop
  labels: { ${labels} }
  annotations: { ambient.istio.io/redirection: enabled }
spec:
  nodeName: node-1
  serviceAccountName: shop
  containers: [{ name: c, ports: [{ name: web, containerPort: 8080 }] }]
status: { phase: Running, podIP: 10.0.0.${name.length}, conditions: [{ type: Ready, status: "True" }] }
---`;
}

/** An object in namespace shop unless told otherwise; `spec` is flow YAML. */
export function objectYaml(
  kind: string,
  name: string,
  spec: string,
  metadata = "namespace: shop",
): string {
  return `
apiVersion: ${API_VERSIONS[kind] ?? "v1"}
kind: ${kind}
metadata: { name: ${name}, ${metadata} }
spec: ${spec}
---`;
}

const API_VERSIONS: Readonly<Record<string, string>> = {
  ServiceEntry: "networking.istio.io/v1",
  WorkloadEntry: "networking.istio.io/v1",
  AuthorizationPolicy: "security.istio.io/v1",
  PeerAuthentication: "security.istio.io/v1",
  Gateway: "gateway.networking.k8s.io/v1",
  GatewayClass: "gateway.networking.k8s.io/v1",
};

export function serviceYaml(name: string, more = "selector: { app: a }"): string {
  const ports = "ports: [{ name: http, port: 80, targetPort: web }]";
  return objectYaml("Service", name, `{ clusterIP: 10.96.0.1, ${ports}, ${more} }`);
}

/** `annotations` are flow YAML, as `spec` is. */
export function policyYaml(spec: string, namespace = "shop", annotations = ""): string {
  const metadata = `namespace: ${namespace}, annotations: { ${annotations} }`;
  return objectYaml("AuthorizationPolicy", "p", spec, metadata);
}

export function peerAuthenticationYaml(namespace: string, spec: string, name = "default"): string {
  return objectYaml("PeerAuthentication", name, spec, `namespace: ${namespace}`);
}
