// What ztunnel takes from Istio's mesh configuration: the mesh file's defaultConfig, overridden by
// PROXY_CONFIG, overridden by the environment (ztunnel §7.4). Everything else in them is not ours.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Environment } from "@ambit/common/process/config.ts";
import type * as documents from "./mesh-config-document.ts";
import { errorCode, errorMessage } from "@ambit/common/process/errors.ts";

export const MESH_CONFIG_FILE = "./etc/istio/config/mesh";

type Documents = typeof documents;
type ProxyConfig = documents.ProxyConfig;

const require = createRequire(import.meta.url);

/** Variables that the mesh configuration stands in for when the environment does not set them. */
const STANDS_FOR = {
  discoveryAddress: ["XDS_ADDRESS", "CA_ADDRESS"],
  proxyAdminPort: ["ADMIN_PORT"],
  statsPort: ["STATS_PORT"],
  concurrency: ["ZTUNNEL_WORKER_THREADS"],
} as const satisfies Partial<Record<keyof ProxyConfig, readonly string[]>>;

/**
 * The environment completed by the mesh configuration: file below PROXY_CONFIG below the environment.
 * `problem` hears what cannot be read, by the name of its source; the rest still counts.
 */
export function withMeshDefaults(
  env: Environment,
  meshFile: string,
  problem: (source: string, message: string) => void,
): Environment {
  const merged: Record<string, string> = {
    ...asVariables(parsed("parseMeshFile", meshFile, () => readIfPresent(meshFile), problem)),
    ...asVariables(parsed("parseProxyConfig", "PROXY_CONFIG", () => env["PROXY_CONFIG"], problem)),
  };
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && value !== "") merged[name] = value;
  }
  return merged;
}

/** The parsers are loaded only when there is something to parse. */
function parsed(
  parser: keyof Documents,
  source: string,
  read: () => string | undefined,
  problem: (source: string, message: string) => void,
): ProxyConfig | undefined {
  try {
    const text = read();
    if (text === undefined) return undefined;
    const parsers = require("./mesh-config-document.ts") as Documents;
    return parsers[parser](text);
  } catch (error) {
    problem(source, errorMessage(error));
    return undefined;
  }
}

function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function asVariables(config: ProxyConfig | undefined): Record<string, string> {
  const variables: Record<string, string> = { ...config?.proxyMetadata };
  for (const [field, names] of Object.entries(STANDS_FOR)) {
    const value = config?.[field as keyof typeof STANDS_FOR];
    if (value !== undefined) for (const name of names) variables[name] = String(value);
  }
  return variables;
}

/** `PREFIX_<name>=value` as name to value. */
export function prefixed(env: Environment, prefix: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (name.startsWith(prefix) && name.length > prefix.length && value !== undefined) {
      found[name.slice(prefix.length)] = value;
    }
  }
  return found;
}
