// The mesh that the scale bench works on: namespaces with services, pods spread over nodes, policies.

import type { Resource } from "@ambit/api/resources/kinds.ts";
import { parseResource } from "@ambit/api/resources/parse.ts";
import { assert } from "@ambit/common/process/assert.ts";
import type { ResourceEvent } from "@ambit/common/resources/source.ts";

export interface MeshSize {
  readonly pods: number;
  readonly services: number;
  readonly nodes: number;
  readonly namespaces: number;
}

function upsert(value: unknown): ResourceEvent {
  const parsed = parseResource(value);
  assert(parsed.ok, `a bench object is sound: ${JSON.stringify(parsed)}`);
  return { type: "upsert", resource: parsed.resource satisfies Resource };
}

const namespaceOf = (i: number, { namespaces }: MeshSize) => `ns-${i % namespaces}`;

/** Pod `i`; its readiness is what the bench changes. */
export function podEvent(i: number, size: MeshSize, ready: boolean): ResourceEvent {
  const service = i % size.services;
  return upsert({
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: `app-${service}-7d4b9c6f5-${i}`,
      namespace: namespaceOf(service, size),
      uid: `00000000-0000-0000-0000-${i}`,
      labels: { app: `app-${service}`, version: "v1", "pod-template-hash": "7d4b9c6f5" },
      annotations: { "ambient.istio.io/redirection": "enabled" },
      ownerReferences: [{ kind: "ReplicaSet", name: `app-${service}-7d4b9c6f5`, controller: true }],
    },
    spec: {
      nodeName: `node-${i % size.nodes}`,
      serviceAccountName: `app-${service}`,
      containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080 }] }],
    },
    status: {
      phase: "Running",
      podIPs: [{ ip: `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}` }],
      conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
    },
  });
}

/** A policy for the pods of one service. */
export function policyEvent(service: number, size: MeshSize, account: string): ResourceEvent {
  return upsert({
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: `app-${service}`, namespace: namespaceOf(service, size) },
    spec: {
      selector: { matchLabels: { app: `app-${service}` } },
      rules: [{ from: [{ source: { principals: [`cluster.local/ns/x/sa/${account}`] } }] }],
    },
  });
}

export function meshEvents(size: MeshSize): ResourceEvent[] {
  const count = (length: number, make: (i: number) => ResourceEvent) =>
    Array.from({ length }, (_, i) => make(i));
  return [
    ...count(size.nodes, (i) =>
      upsert({
        apiVersion: "v1",
        kind: "Node",
        metadata: {
          name: `node-${i}`,
          labels: {
            "topology.kubernetes.io/region": "r1",
            "topology.kubernetes.io/zone": `z${i % 3}`,
          },
        },
      }),
    ),
    ...count(size.services, (i) =>
      upsert({
        apiVersion: "v1",
        kind: "Service",
        metadata: { name: `app-${i}`, namespace: namespaceOf(i, size) },
        spec: {
          clusterIP: `10.96.${i >> 8}.${i & 255}`,
          selector: { app: `app-${i}` },
          ports: [{ name: "http", port: 80, targetPort: "http" }],
        },
      }),
    ),
    ...count(Math.floor(size.services / 10), (i) => policyEvent(i * 10, size, "client")),
    upsert({
      apiVersion: "security.istio.io/v1",
      kind: "PeerAuthentication",
      metadata: { name: "default", namespace: "istio-system" },
      spec: { mtls: { mode: "STRICT" } },
    }),
    ...count(size.pods, (i) => podEvent(i, size, true)),
  ];
}
