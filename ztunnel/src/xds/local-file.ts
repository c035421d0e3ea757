// LOCAL_XDS_PATH: the mesh from a YAML file instead of a control plane. The file becomes the same
// protobuf resources that xDS carries, so everything behind it is one path. Unknown fields are errors.

import { readFileSync } from "node:fs";
import { create, toBinary } from "@bufbuild/protobuf";
import { parse } from "yaml";
import { z } from "zod";
import {
  Action,
  AuthorizationSchema,
  MatchSchema,
  Scope,
  type StringMatch,
  StringMatchSchema,
} from "@ambit/api/gen/istio/authorization_pb.ts";
import { AddressSchema, TunnelProtocol, WorkloadStatus } from "@ambit/api/gen/istio/workload_pb.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { parseCidr } from "@ambit/common/net/cidr.ts";
import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import type { ResourceUpsert } from "../state/mesh-state.ts";

const ports = z.record(z.string(), z.number().int()).default({});
const workload = z.strictObject({
  uid: z.string(),
  name: z.string(),
  namespace: z.string().default(""),
  serviceAccount: z.string().default(""),
  trustDomain: z.string().default(""),
  workloadIps: z.array(z.string()).default([]),
  network: z.string().default(""),
  protocol: z.enum(["HBONE", "TCP", "NONE"]).default("NONE"),
  node: z.string().default(""),
  hostname: z.string().default(""),
  workloadName: z.string().default(""),
  canonicalName: z.string().default(""),
  canonicalRevision: z.string().default(""),
  clusterId: z.string().default(""),
  status: z.enum(["Healthy", "Unhealthy"]).default("Healthy"),
  authorizationPolicies: z.array(z.string()).default([]),
  services: z.record(z.string(), ports).default({}),
});
const service = z.strictObject({
  name: z.string(),
  namespace: z.string(),
  hostname: z.string(),
  vips: z.array(z.string()).default([]),
  ports,
  subjectAltNames: z.array(z.string()).default([]),
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
const file = z.strictObject({
  workloads: z.array(workload).default([]),
  services: z.array(service).default([]),
  policies: z.array(policy).default([]),
});

export interface LocalMesh {
  readonly addresses: ResourceUpsert[];
  readonly authorizations: ResourceUpsert[];
}

/** Reads and converts the file. Throws UserError that names the file and the field. */
export function readLocalMesh(path: string): LocalMesh {
  try {
    const parsed = file.parse(parse(readFileSync(path, "utf8")));
    return {
      addresses: [
        ...parsed.services.map(serviceResource),
        ...parsed.workloads.map(workloadResource),
      ],
      authorizations: parsed.policies.map(policyResource),
    };
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : errorMessage(error);
    throw new UserError(`LOCAL_XDS_PATH ${path}: ${why}`);
  }
}

function workloadResource(entry: z.infer<typeof workload>): ResourceUpsert {
  const { workloadIps, protocol, status, services, ...rest } = entry;
  const message = create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        ...rest,
        addresses: workloadIps.map(ipBytes),
        tunnelProtocol: protocol === "HBONE" ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
        status: status === "Healthy" ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
        services: Object.fromEntries(
          Object.entries(services).map(([key, map]) => [key, { ports: portList(map) }]),
        ),
      },
    },
  });
  return { name: entry.uid, value: toBinary(AddressSchema, message) };
}

function serviceResource({ vips, ports: map, ...rest }: z.infer<typeof service>): ResourceUpsert {
  const message = create(AddressSchema, {
    type: { case: "service", value: { ...rest, addresses: vips.map(vip), ports: portList(map) } },
  });
  return { name: `${rest.namespace}/${rest.hostname}`, value: toBinary(AddressSchema, message) };
}

function policyResource(entry: z.infer<typeof policy>): ResourceUpsert {
  const message = create(AuthorizationSchema, {
    name: entry.name,
    namespace: entry.namespace,
    dryRun: entry.dryRun,
    scope: {
      Global: Scope.GLOBAL,
      Namespace: Scope.NAMESPACE,
      WorkloadSelector: Scope.WORKLOAD_SELECTOR,
    }[entry.scope],
    action: entry.action === "Allow" ? Action.ALLOW : Action.DENY,
    rules: entry.rules.map((clauses) => ({
      clauses: clauses.map((matches) => ({ matches: matches.map(matchMessage) })),
    })),
  });
  return {
    name: `${entry.namespace}/${entry.name}`,
    value: toBinary(AuthorizationSchema, message),
  };
}

function matchMessage(entry: z.infer<typeof match>) {
  return create(MatchSchema, {
    destinationPorts: entry.destinationPorts,
    notDestinationPorts: entry.notDestinationPorts,
    namespaces: entry.namespaces.map(stringMessage),
    notNamespaces: entry.notNamespaces.map(stringMessage),
    principals: entry.principals.map(stringMessage),
    notPrincipals: entry.notPrincipals.map(stringMessage),
    sourceIps: entry.sourceIps.map(cidrMessage),
    notSourceIps: entry.notSourceIps.map(cidrMessage),
    destinationIps: entry.destinationIps.map(cidrMessage),
    notDestinationIps: entry.notDestinationIps.map(cidrMessage),
  });
}

function stringMessage(entry: z.infer<typeof stringMatch>): StringMatch {
  if (entry === "Presence")
    return create(StringMatchSchema, { matchType: { case: "presence", value: {} } });
  if ("Exact" in entry)
    return create(StringMatchSchema, { matchType: { case: "exact", value: entry.Exact } });
  if ("Prefix" in entry)
    return create(StringMatchSchema, { matchType: { case: "prefix", value: entry.Prefix } });
  return create(StringMatchSchema, { matchType: { case: "suffix", value: entry.Suffix } });
}

function cidrMessage(text: string): { address: Uint8Array; length: number } {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new Error(`"${text}" is not a CIDR`);
  return { address: ipToBytes(cidr.ip), length: cidr.prefixLength };
}

function portList(map: Record<string, number>): { servicePort: number; targetPort: number }[] {
  return Object.entries(map).map(([servicePort, targetPort]) => ({
    servicePort: Number(servicePort),
    targetPort,
  }));
}

/** "network/ip", where the network may be empty. */
function vip(text: string): { network: string; address: Uint8Array } {
  const slash = text.indexOf("/");
  return { network: text.slice(0, Math.max(0, slash)), address: ipBytes(text.slice(slash + 1)) };
}

function ipBytes(text: string): Uint8Array {
  const ip = parseIp(text);
  if (ip === undefined) throw new Error(`"${text}" is not an IP address`);
  return ipToBytes(ip);
}
