// The table of every resource kind: its schema, plural, and whether it lives in a namespace. Adding a kind
// means a schema and a line here; types, validation, CRDs and JSON Schemas follow.

import type { z } from "zod";
import {
  configMap,
  deployment,
  endpointSlice,
  namespace,
  node,
  pod,
  service,
  serviceAccount,
} from "./core.ts";
import { gateway, gatewayClass } from "./gateway.ts";
import { authorizationPolicy, peerAuthentication, serviceEntry, workloadEntry } from "./mesh.ts";

export const KINDS = {
  Namespace: {
    plural: "namespaces",
    short: "ns",
    namespaced: false,
    custom: false,
    schema: namespace,
  },
  Node: { plural: "nodes", short: "no", namespaced: false, custom: false, schema: node },
  ServiceAccount: {
    plural: "serviceaccounts",
    short: "sa",
    namespaced: true,
    custom: false,
    schema: serviceAccount,
  },
  Pod: { plural: "pods", short: "po", namespaced: true, custom: false, schema: pod },
  Deployment: {
    plural: "deployments",
    short: "deploy",
    namespaced: true,
    custom: false,
    schema: deployment,
  },
  Service: { plural: "services", short: "svc", namespaced: true, custom: false, schema: service },
  EndpointSlice: {
    plural: "endpointslices",
    short: "eps",
    namespaced: true,
    custom: false,
    schema: endpointSlice,
  },
  PeerAuthentication: {
    plural: "peerauthentications",
    short: "pa",
    namespaced: true,
    custom: true,
    schema: peerAuthentication,
  },
  AuthorizationPolicy: {
    plural: "authorizationpolicies",
    short: "ap",
    namespaced: true,
    custom: true,
    schema: authorizationPolicy,
  },
  ServiceEntry: {
    plural: "serviceentries",
    short: "se",
    namespaced: true,
    custom: true,
    schema: serviceEntry,
  },
  WorkloadEntry: {
    plural: "workloadentries",
    short: "we",
    namespaced: true,
    custom: true,
    schema: workloadEntry,
  },
  ConfigMap: {
    plural: "configmaps",
    short: "cm",
    namespaced: true,
    custom: false,
    schema: configMap,
  },
  GatewayClass: {
    plural: "gatewayclasses",
    short: "gc",
    namespaced: false,
    custom: false,
    schema: gatewayClass,
  },
  Gateway: {
    plural: "gateways",
    short: "gtw",
    namespaced: true,
    custom: false,
    schema: gateway,
  },
} as const;

export type ResourceKind = keyof typeof KINDS;
export type ResourceOf<K extends ResourceKind> = z.infer<(typeof KINDS)[K]["schema"]>;
export type Resource = { [K in ResourceKind]: ResourceOf<K> }[ResourceKind];

export type Namespace = ResourceOf<"Namespace">;
export type Node = ResourceOf<"Node">;
export type ServiceAccount = ResourceOf<"ServiceAccount">;
export type Pod = ResourceOf<"Pod">;
export type Deployment = ResourceOf<"Deployment">;
export type Service = ResourceOf<"Service">;
export type EndpointSlice = ResourceOf<"EndpointSlice">;
export type PeerAuthentication = ResourceOf<"PeerAuthentication">;
export type AuthorizationPolicy = ResourceOf<"AuthorizationPolicy">;
export type ServiceEntry = ResourceOf<"ServiceEntry">;
export type WorkloadEntry = ResourceOf<"WorkloadEntry">;
export type ConfigMap = ResourceOf<"ConfigMap">;
export type GatewayClass = ResourceOf<"GatewayClass">;
export type Gateway = ResourceOf<"Gateway">;

export function isResourceKind(text: string): text is ResourceKind {
  return Object.hasOwn(KINDS, text);
}

/** A kind by what users type: Pod, pod, pods, po. */
export function findKind(text: string): ResourceKind | undefined {
  const wanted = text.toLowerCase();
  return (Object.keys(KINDS) as ResourceKind[]).find((kind) => {
    const { plural, short } = KINDS[kind];
    return wanted === kind.toLowerCase() || wanted === plural || wanted === short;
  });
}
