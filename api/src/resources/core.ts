// The core Kubernetes kinds we read: only the fields we use, everything else is let through. In local
// mode the same schemas say what a pod can be asked to run.

import { z } from "zod";
import { conditions, objectMeta, port, stringMap } from "./meta.ts";

const protocol = z.enum(["TCP", "UDP", "SCTP"]).default("TCP");
const intOrString = z.union([z.number().int(), z.string()]);

export const namespace = z.looseObject({
  apiVersion: z.literal("v1"),
  kind: z.literal("Namespace"),
  metadata: objectMeta,
});

export const serviceAccount = z.looseObject({
  apiVersion: z.literal("v1"),
  kind: z.literal("ServiceAccount"),
  metadata: objectMeta,
});

export const configMap = z.looseObject({
  apiVersion: z.literal("v1"),
  kind: z.literal("ConfigMap"),
  metadata: objectMeta,
  data: stringMap.optional(),
});

export const node = z.looseObject({
  apiVersion: z.literal("v1"),
  kind: z.literal("Node"),
  metadata: objectMeta,
  status: z.looseObject({ conditions: conditions.optional() }).optional(),
});

const probe = z.looseObject({
  httpGet: z.looseObject({ path: z.string().default("/"), port: intOrString }).optional(),
  tcpSocket: z.looseObject({ port: intOrString }).optional(),
  exec: z.looseObject({ command: z.array(z.string()) }).optional(),
  periodSeconds: z.number().int().min(1).default(10),
  timeoutSeconds: z.number().int().min(1).default(1),
  initialDelaySeconds: z.number().int().min(0).default(0),
  failureThreshold: z.number().int().min(1).default(3),
});

const container = z.looseObject({
  name: z.string(),
  image: z.string().optional(),
  command: z.array(z.string()).optional(),
  args: z.array(z.string()).optional(),
  workingDir: z.string().optional(),
  env: z.array(z.looseObject({ name: z.string(), value: z.string().default("") })).optional(),
  ports: z
    .array(z.looseObject({ containerPort: port, name: z.string().optional(), protocol }))
    .optional(),
  readinessProbe: probe.optional(),
});

export const podSpec = z.looseObject({
  nodeName: z.string().optional(),
  serviceAccountName: z.string().optional(),
  hostNetwork: z.boolean().optional(),
  containers: z.array(container).min(1, "a pod needs at least one container"),
  initContainers: z
    .array(container.extend({ restartPolicy: z.enum(["Always"]).optional() }))
    .optional(),
});

export const pod = z.looseObject({
  apiVersion: z.literal("v1"),
  kind: z.literal("Pod"),
  metadata: objectMeta,
  spec: podSpec,
  status: z
    .looseObject({
      phase: z.enum(["Pending", "Running", "Succeeded", "Failed", "Unknown"]).optional(),
      podIP: z.string().optional(),
      podIPs: z.array(z.looseObject({ ip: z.string() })).optional(),
      hostIP: z.string().optional(),
      conditions: conditions.optional(),
    })
    .optional(),
});

export const deployment = z.looseObject({
  apiVersion: z.literal("apps/v1"),
  kind: z.literal("Deployment"),
  metadata: objectMeta,
  spec: z.looseObject({
    replicas: z.number().int().min(0).max(1000).default(1),
    selector: z.looseObject({ matchLabels: stringMap.optional() }),
    template: z.looseObject({
      metadata: z
        .looseObject({ labels: stringMap.optional(), annotations: stringMap.optional() })
        .optional(),
      spec: podSpec,
    }),
  }),
});

const servicePort = z.looseObject({
  name: z.string().optional(),
  port,
  targetPort: z.union([port, z.string()]).optional(),
  protocol,
  appProtocol: z.string().optional(),
});

export const service = z.looseObject({
  apiVersion: z.literal("v1"),
  kind: z.literal("Service"),
  metadata: objectMeta,
  spec: z
    .looseObject({
      type: z.enum(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]).default("ClusterIP"),
      selector: stringMap.optional(),
      ports: z.array(servicePort).optional(),
      clusterIP: z.string().optional(),
      clusterIPs: z.array(z.string()).optional(),
      ipFamilies: z.array(z.enum(["IPv4", "IPv6"])).optional(),
      publishNotReadyAddresses: z.boolean().optional(),
      internalTrafficPolicy: z.enum(["Cluster", "Local"]).optional(),
      trafficDistribution: z.string().optional(),
      externalName: z.string().optional(),
    })
    .superRefine(({ ports = [] }, context) => {
      checkServicePorts(ports, (path, message) =>
        context.addIssue({ code: "custom", path, message }),
      );
    }),
  status: z.looseObject({ conditions: conditions.optional() }).optional(),
});

/** Kubernetes' own rules: several ports need names, and no two may be alike. */
function checkServicePorts(
  ports: readonly { name?: string | undefined; port: number; protocol: string }[],
  report: (path: (string | number)[], message: string) => void,
): void {
  const names = new Set<string>();
  const numbers = new Set<string>();
  ports.forEach(({ name, port: number, protocol: transport }, i) => {
    if (name === undefined && ports.length > 1) {
      report(["ports", i, "name"], "is required when a service has several ports");
    }
    if (name !== undefined && names.has(name))
      report(["ports", i, "name"], `"${name}" is used twice`);
    if (name !== undefined) names.add(name);
    const key = `${number}/${transport}`;
    if (numbers.has(key))
      report(["ports", i, "port"], `${key} is used twice: give each port its own number`);
    numbers.add(key);
  });
}

export const endpointSlice = z.looseObject({
  apiVersion: z.literal("discovery.k8s.io/v1"),
  kind: z.literal("EndpointSlice"),
  metadata: objectMeta,
  addressType: z.enum(["IPv4", "IPv6", "FQDN"]),
  endpoints: z.array(
    z.looseObject({
      addresses: z.array(z.string()),
      conditions: z.looseObject({ ready: z.boolean().optional() }).optional(),
      targetRef: z
        .looseObject({ kind: z.string(), name: z.string(), namespace: z.string().optional() })
        .optional(),
      nodeName: z.string().optional(),
    }),
  ),
  ports: z
    .array(z.looseObject({ name: z.string().optional(), port: port.optional(), protocol }))
    .optional(),
});
