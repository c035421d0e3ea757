// Istio's custom resources that the mesh acts on. Strict: a field that is not known is a mistake of the
// writer, and is reported with its place.

import { z } from "zod";
import { conditions, labelSelector, objectMeta, port, stringMap } from "./meta.ts";

const strings = z.array(z.string()).optional();
const status = z.looseObject({ conditions: conditions.optional() }).optional();

const mtls = z.strictObject({
  mode: z.enum(["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]).default("UNSET"),
});

export const peerAuthentication = z.strictObject({
  apiVersion: z.enum(["security.istio.io/v1", "security.istio.io/v1beta1"]),
  kind: z.literal("PeerAuthentication"),
  metadata: objectMeta,
  spec: z
    .strictObject({
      selector: labelSelector.pick({ matchLabels: true }).optional(),
      mtls: mtls.optional(),
      portLevelMtls: z
        .record(z.string().regex(/^\d{1,5}$/, "must be a port number"), mtls)
        .optional(),
    })
    .default({}),
  status,
});

const source = z.strictObject({
  principals: strings,
  notPrincipals: strings,
  requestPrincipals: strings,
  notRequestPrincipals: strings,
  namespaces: strings,
  notNamespaces: strings,
  ipBlocks: strings,
  notIpBlocks: strings,
  remoteIpBlocks: strings,
  notRemoteIpBlocks: strings,
  serviceAccounts: strings,
  notServiceAccounts: strings,
  trustDomains: strings,
  notTrustDomains: strings,
});

const operation = z.strictObject({
  hosts: strings,
  notHosts: strings,
  ports: strings,
  notPorts: strings,
  methods: strings,
  notMethods: strings,
  paths: strings,
  notPaths: strings,
});

const targetRef = z.strictObject({
  group: z.string().default(""),
  kind: z.string(),
  name: z.string(),
  namespace: z.string().optional(),
});

export const authorizationPolicy = z.strictObject({
  apiVersion: z.enum(["security.istio.io/v1", "security.istio.io/v1beta1"]),
  kind: z.literal("AuthorizationPolicy"),
  metadata: objectMeta,
  spec: z
    .strictObject({
      selector: labelSelector.pick({ matchLabels: true }).optional(),
      targetRef: targetRef.optional(),
      targetRefs: z.array(targetRef).optional(),
      action: z.enum(["ALLOW", "DENY", "AUDIT", "CUSTOM"]).default("ALLOW"),
      provider: z.strictObject({ name: z.string() }).optional(),
      rules: z
        .array(
          z.strictObject({
            from: z.array(z.strictObject({ source })).optional(),
            to: z.array(z.strictObject({ operation })).optional(),
            when: z
              .array(z.strictObject({ key: z.string(), values: strings, notValues: strings }))
              .optional(),
          }),
        )
        .optional(),
    })
    .default({ action: "ALLOW" }),
  status,
});

const workloadEntrySpec = z.strictObject({
  address: z.string().optional(),
  ports: z.record(z.string(), port).optional(),
  labels: stringMap.optional(),
  network: z.string().optional(),
  locality: z.string().optional(),
  weight: z.number().int().min(0).optional(),
  serviceAccount: z.string().optional(),
});

export const workloadEntry = z.strictObject({
  apiVersion: z.enum([
    "networking.istio.io/v1",
    "networking.istio.io/v1beta1",
    "networking.istio.io/v1alpha3",
  ]),
  kind: z.literal("WorkloadEntry"),
  metadata: objectMeta,
  spec: workloadEntrySpec,
  status,
});

export const serviceEntry = z.strictObject({
  apiVersion: z.enum([
    "networking.istio.io/v1",
    "networking.istio.io/v1beta1",
    "networking.istio.io/v1alpha3",
  ]),
  kind: z.literal("ServiceEntry"),
  metadata: objectMeta,
  spec: z.strictObject({
    hosts: z.array(z.string()).min(1, "a ServiceEntry needs at least one host"),
    addresses: strings,
    ports: z
      .array(
        z.strictObject({
          number: port,
          name: z.string(),
          protocol: z.string().optional(),
          targetPort: port.optional(),
        }),
      )
      .optional(),
    location: z.enum(["MESH_EXTERNAL", "MESH_INTERNAL"]).optional(),
    resolution: z.enum(["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]).default("NONE"),
    endpoints: z.array(workloadEntrySpec).optional(),
    workloadSelector: z.strictObject({ labels: stringMap.optional() }).optional(),
    exportTo: strings,
    subjectAltNames: strings,
  }),
  status: z
    .looseObject({
      conditions: conditions.optional(),
      addresses: z
        .array(z.looseObject({ value: z.string(), host: z.string().optional() }))
        .optional(),
    })
    .optional(),
});
