// LOCAL_XDS_PATH and LOCAL_XDS: the mesh from a YAML file instead of a control plane. The file becomes the same
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
import {
  AddressSchema,
  ApplicationTunnel_Protocol,
  GatewayAddressSchema,
  IPFamilies,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  LoadBalancingSchema,
  NetworkMode,
  Service_Visibility,
  TunnelProtocol,
  WorkloadStatus,
  WorkloadType,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { Config } from "../config.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { parseCidr } from "@ambit/common/net/cidr.ts";
import { ipToBytes, parseIp } from "@ambit/common/net/ip.ts";
import {
  type LocalGateway,
  type LocalMatch,
  localMeshFile,
  type LocalPolicy,
  type LocalService,
  type LocalStringMatch,
  type LocalWorkload,
} from "./local-schema.ts";
import type { ResourceUpsert } from "../state/mesh-state.ts";

export interface LocalMesh {
  readonly addresses: ResourceUpsert[];
  readonly authorizations: ResourceUpsert[];
}

/** Reads and converts the file, or the inline text. Throws UserError naming source and field. */
export function readLocalMesh(config: Pick<Config, "localXdsPath" | "localXds">): LocalMesh {
  const { localXdsPath, localXds } = config;
  const source = localXdsPath === undefined ? "LOCAL_XDS" : `LOCAL_XDS_PATH ${localXdsPath}`;
  try {
    const text = localXdsPath === undefined ? localXds : readFileSync(localXdsPath, "utf8");
    return parseLocalMesh(text ?? "");
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : errorMessage(error);
    throw new UserError(`${source}: ${why}`);
  }
}

/** Converts the YAML. Throws ZodError, YAMLParseError, or an Error about an address. */
export function parseLocalMesh(text: string): LocalMesh {
  const parsed = localMeshFile.parse(parse(text) ?? {});
  return {
    addresses: [...parsed.services.map(serviceResource), ...parsed.workloads.map(workloadResource)],
    authorizations: parsed.policies.map(policyResource),
  };
}

function workloadResource(entry: LocalWorkload): ResourceUpsert {
  const { workloadIps, protocol, status, services, networkMode, workloadType, ...rest } = entry;
  const { waypoint, networkGateway, applicationTunnel, locality, capacity, ...plain } = rest;
  const message = create(AddressSchema, {
    type: {
      case: "workload",
      value: {
        ...plain,
        addresses: workloadIps.map(ipBytes),
        tunnelProtocol: protocol === "HBONE" ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
        status: status === "Healthy" ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
        networkMode: networkMode === "Standard" ? NetworkMode.STANDARD : NetworkMode.HOST_NETWORK,
        workloadType: WORKLOAD_TYPES[workloadType],
        services: Object.fromEntries(
          Object.entries(services).map(([key, map]) => [key, { ports: portList(map) }]),
        ),
        ...(capacity !== undefined && { capacity }),
        ...(locality && { locality }),
        ...(waypoint && { waypoint: gatewayMessage(waypoint) }),
        ...(networkGateway && { networkGateway: gatewayMessage(networkGateway) }),
        ...(applicationTunnel && {
          applicationTunnel: {
            protocol: ApplicationTunnel_Protocol[applicationTunnel.protocol],
            port: applicationTunnel.port,
          },
        }),
      },
    },
  });
  return { name: entry.uid, value: toBinary(AddressSchema, message) };
}

const WORKLOAD_TYPES = {
  deployment: WorkloadType.DEPLOYMENT,
  cronjob: WorkloadType.CRONJOB,
  pod: WorkloadType.POD,
  job: WorkloadType.JOB,
} as const;

function serviceResource(entry: LocalService): ResourceUpsert {
  const { vips, ports: map, waypoint, loadBalancer, ipFamilies, visibility, ...rest } = entry;
  const message = create(AddressSchema, {
    type: {
      case: "service",
      value: {
        ...rest,
        addresses: vips.map(vip),
        ports: portList(map),
        ipFamilies: IP_FAMILIES[ipFamilies ?? "any"],
        visibility: Service_Visibility[visibility === "Public" ? "PUBLIC" : "NAMESPACE"],
        ...(waypoint && { waypoint: gatewayMessage(waypoint) }),
        ...(loadBalancer && { loadBalancing: loadBalancingMessage(loadBalancer) }),
      },
    },
  });
  return { name: `${rest.namespace}/${rest.hostname}`, value: toBinary(AddressSchema, message) };
}

const IP_FAMILIES = {
  any: IPFamilies.AUTOMATIC,
  IPv4: IPFamilies.IPV4_ONLY,
  IPv6: IPFamilies.IPV6_ONLY,
  Dual: IPFamilies.DUAL,
} as const;

function loadBalancingMessage(entry: NonNullable<LocalService["loadBalancer"]>) {
  return create(LoadBalancingSchema, {
    mode: LoadBalancing_Mode[MODES[entry.mode]],
    routingPreference: entry.routingPreferences.map(
      (scope) => LoadBalancing_Scope[scope.toUpperCase() as Uppercase<typeof scope>],
    ),
    healthPolicy:
      LoadBalancing_HealthPolicy[entry.healthPolicy === "AllowAll" ? "ALLOW_ALL" : "ONLY_HEALTHY"],
  });
}

const MODES = {
  Standard: "UNSPECIFIED_MODE",
  Strict: "STRICT",
  Failover: "FAILOVER",
  Passthrough: "PASSTHROUGH",
} as const;

function gatewayMessage({ destination, hboneMtlsPort }: LocalGateway) {
  const slash = destination.indexOf("/");
  const left = destination.slice(0, Math.max(0, slash));
  const right = destination.slice(slash + 1);
  const ip = parseIp(right);
  return create(GatewayAddressSchema, {
    hboneMtlsPort,
    destination:
      ip === undefined
        ? { case: "hostname", value: { namespace: left, hostname: right } }
        : { case: "address", value: { network: left, address: ipToBytes(ip) } },
  });
}

function policyResource(entry: LocalPolicy): ResourceUpsert {
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

function matchMessage(entry: LocalMatch) {
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

function stringMessage(entry: LocalStringMatch): StringMatch {
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
