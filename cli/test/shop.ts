// The mesh of the acceptance tests: on two nodes, pods in the mesh, one that opted out, and one of a
// namespace outside it; in front of each a Service.

import { join } from "node:path";

const SERVER = join(import.meta.dirname, "test-server.ts");
const PORTS =
  "ports: [{ name: http, port: 80, targetPort: web }, { name: tcp, port: 9000 }, { name: first, port: 9001 }]";

interface PodOptions {
  readonly node: string;
  readonly namespace?: string;
  readonly labels?: string;
  readonly spec?: string;
}

/** A pod that runs test-server.ts under a service account of its own name. */
export function pod(name: string, { node, namespace = "shop", labels, spec }: PodOptions): string {
  return `
apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: ${namespace}
  labels: { app: ${name}${labels === undefined ? "" : `, ${labels}`} }
spec:
  nodeName: ${node}
  serviceAccountName: ${name}
  ${spec ?? ""}
  containers:
    - name: app
      command: [${process.execPath}, ${SERVER}]
      env: [{ name: NAME, value: ${name} }]
      ports: [{ name: web, containerPort: 8080 }]
      readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---`;
}

/** A Service `name` for the pods labelled app=`app`: 80 goes to the port named web. */
export function service(name: string, app = name, spec = PORTS, namespace = "shop"): string {
  return `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec: { selector: { app: ${app} }, ${spec} }
---`;
}

export const SHOP = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: outside }
---
${pod("client", { node: "node-1" })}
${pod("near", { node: "node-1" })}
${pod("far", { node: "node-2" })}
${pod("optout", { node: "node-2", labels: "istio.io/dataplane-mode: none" })}
${pod("legacy", { node: "node-2", namespace: "outside" })}
${service("near")}
${service("far")}
${service("far-headless", "far", `clusterIP: None, ${PORTS}`)}
${service("optout")}
${service("legacy", "legacy", PORTS, "outside")}`;
