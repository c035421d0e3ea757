// What operators and the CLI ask istiod-lite: who is in sync, what is served, what is wrong.

import { type DescMessage, fromBinary, type JsonValue, toJson } from "@bufbuild/protobuf";
import { AuthorizationSchema } from "@ambit/api/gen/istio/authorization_pb.ts";
import { AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import { type HttpReply, jsonReply, type Routes } from "@ambit/common/process/http-server.ts";
import type { DeltaServer } from "@ambit/common/xds/delta-server.ts";
import type { ResourceStore } from "@ambit/common/xds/resource-store.ts";
import {
  TYPE_ADDRESS,
  TYPE_AUTHORIZATION,
  type XdsResource,
} from "@ambit/common/xds/resource-type.ts";
import type { MeshConfigWatch } from "./mesh-config/mesh-config-watch.ts";
import type { MeshPusher } from "./push/mesh-pusher.ts";
import type { StatusWriter } from "./status/status-writer.ts";

export interface DebugParts {
  readonly delta: DeltaServer;
  readonly store: ResourceStore;
  readonly pusher: MeshPusher;
  readonly statuses: StatusWriter;
  readonly meshConfig: MeshConfigWatch;
  readonly rootBundlePem: () => string;
}

const SCHEMAS = new Map<string, DescMessage>([
  [TYPE_ADDRESS, AddressSchema],
  [TYPE_AUTHORIZATION, AuthorizationSchema],
]);

export function debugRoutes(parts: DebugParts): Routes {
  const { delta, store, pusher, statuses, meshConfig, rootBundlePem } = parts;
  const routes: Routes = {
    "GET /debug/syncz": () => jsonReply(delta.sessions),
    "GET /debug/resourcesz": ({ query }) => resources(store, query),
    "GET /debug/mesh": () => jsonReply(meshConfig.current),
    "GET /debug/problemsz": () => jsonReply(pusher.problems),
    "GET /debug/statusz": () => jsonReply(statuses.wanted),
    "GET /debug/rootz": () => ({
      status: 200,
      body: rootBundlePem(),
      headers: { "content-type": "application/x-pem-file" },
    }),
  };
  const paths = Object.keys(routes).map((route) => route.slice("GET ".length));
  return { ...routes, "GET /debug/list": () => jsonReply(paths) };
}

/** Everything served, or what `?type=` (a type URL) and `?name=` leave of it, as canonical JSON. */
function resources(store: ResourceStore, query: URLSearchParams): HttpReply {
  const [type, name] = [query.get("type"), query.get("name")];
  const typeUrls = store.typeUrls.filter((typeUrl) => type === null || type === typeUrl);
  return jsonReply(
    typeUrls.flatMap((typeUrl) =>
      [...store.type(typeUrl)!.values()]
        .filter((resource) => name === null || resource.name === name)
        .map((resource) => describe(typeUrl, resource)),
    ),
  );
}

function describe(typeUrl: string, resource: XdsResource): Record<string, JsonValue> {
  const { name, version, aliases, value } = resource;
  const schema = SCHEMAS.get(typeUrl);
  return {
    typeUrl,
    name,
    version,
    aliases: [...aliases],
    resource: schema === undefined ? null : toJson(schema, fromBinary(schema, value)),
  };
}
