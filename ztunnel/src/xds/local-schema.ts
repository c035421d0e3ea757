// The schema of the local mesh file (LOCAL_XDS_PATH): camelCase fields as config_dump prints them,
// everything else refused, so that a typing error is not silently an open door.

import { z } from "zod";

const portNumber = z.int().min(0).max(65_535);
const ports = z.record(z.string().regex(/^\d{1,5}$/, "a port number"), portNumber).default({});
/** "network/ip" or "namespace/hostname". */
const gateway = z.strictObject({
  destination: z.string(),
  hboneMtlsPort: portNumber.default(15_008),
});
const locality = z.strictObject({
  region: z.string().default(""),
  zone: z.string().default(""),
  subzone: z.string().default(""),
});
const workload = z.strictObject({
  uid: z.string(),
  name: z.string(),
  namespace: z.string().default(""),
  serviceAccount: z.string().default(""),
  trustDomain: z.string().default(""),
  workloadIps: z.array(z.string()).default([]),
  network: z.string().default(""),
  networkMode: z.enum(["Standard", "HostNetwork"]).default("Standard"),
  protocol: z.enum(["HBONE", "TCP", "NONE"]).default("NONE"),
  nativeTunnel: z.boolean().default(false),
  node: z.string().default(""),
  hostname: z.string().default(""),
  workloadName: z.string().default(""),
  workloadType: z.enum(["deployment", "cronjob", "pod", "job"]).default("deployment"),
  canonicalName: z.string().default(""),
  canonicalRevision: z.string().default(""),
  clusterId: z.string().default(""),
  locality: locality.optional(),
  capacity: z.int().min(0).optional(),
  status: z.enum(["Healthy", "Unhealthy"]).default("Healthy"),
  authorizationPolicies: z.array(z.string()).default([]),
  services: z.record(z.string(), ports).default({}),
  waypoint: gateway.optional(),
  networkGateway: gateway.optional(),
  applicationTunnel: z
    .strictObject({ protocol: z.enum(["NONE", "PROXY"]), port: portNumber.default(0) })
    .optional(),
});
const SCOPES = ["Region", "Zone", "Subzone", "Node", "Cluster", "Network"] as const;
const service = z.strictObject({
  name: z.string(),
  namespace: z.string(),
  hostname: z.string(),
  vips: z.array(z.string()).default([]),
  ports,
  subjectAltNames: z.array(z.string()).default([]),
  waypoint: gateway.optional(),
  loadBalancer: z
    .strictObject({
      mode: z.enum(["Standard", "Strict", "Failover", "Passthrough"]).default("Standard"),
      routingPreferences: z.array(z.enum(SCOPES)).default([]),
      healthPolicy: z.enum(["OnlyHealthy", "AllowAll"]).default("OnlyHealthy"),
    })
    .optional(),
  ipFamilies: z.enum(["Dual", "IPv4", "IPv6"]).optional(),
  canonical: z.boolean().default(false),
  visibility: z.enum(["Public", "Namespace"]).default("Public"),
});
const stringMatch = z.union([
  z.strictObject({ Exact: z.string() }),
  z.strictObject({ Prefix: z.string() }),
  z.strictObject({ Suffix: z.string() }),
  z.literal("Presence"),
]);
const strings = z.array(stringMatch).default([]);
const cidrs = z.array(z.string()).default([]);
const numbers = z.array(z.number().int()).default([]);
const match = z.strictObject({
  namespaces: strings,
  notNamespaces: strings,
  principals: strings,
  notPrincipals: strings,
  sourceIps: cidrs,
  notSourceIps: cidrs,
  destinationIps: cidrs,
  notDestinationIps: cidrs,
  destinationPorts: numbers,
  notDestinationPorts: numbers,
});
const policy = z.strictObject({
  name: z.string(),
  namespace: z.string(),
  scope: z.enum(["Global", "Namespace", "WorkloadSelector"]),
  action: z.enum(["Allow", "Deny"]),
  dryRun: z.boolean().default(false),
  rules: z.array(z.array(z.array(match))).default([]),
});
export const localMeshFile = z.strictObject({
  workloads: z.array(workload).default([]),
  services: z.array(service).default([]),
  policies: z.array(policy).default([]),
});

export type LocalGateway = z.infer<typeof gateway>;
export type LocalWorkload = z.infer<typeof workload>;
export type LocalService = z.infer<typeof service>;
export type LocalStringMatch = z.infer<typeof stringMatch>;
export type LocalMatch = z.infer<typeof match>;
export type LocalPolicy = z.infer<typeof policy>;
