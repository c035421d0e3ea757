// The documents that hold Istio's mesh configuration, read by their schemas. Loaded only where there is
// one: the YAML parser and the schemas take several MiB in every thread that has them.

import { parse } from "yaml";
import { z } from "zod";
import { errorMessage } from "@ambit/common/process/errors.ts";

const proxyConfig = z.object({
  discoveryAddress: z.string().optional(),
  proxyAdminPort: z.int().min(0).max(65_535).optional(),
  statsPort: z.int().min(0).max(65_535).optional(),
  concurrency: z.int().min(0).optional(),
  proxyMetadata: z.record(z.string(), z.string()).default({}),
});
const meshConfig = z.object({ defaultConfig: proxyConfig.optional() });

export type ProxyConfig = z.infer<typeof proxyConfig>;

/** The proxies' defaults of a mesh file. Throws an Error of one line. */
export function parseMeshFile(text: string): ProxyConfig | undefined {
  return read(text, meshConfig).defaultConfig;
}

/** PROXY_CONFIG. Throws an Error of one line. */
export function parseProxyConfig(text: string): ProxyConfig {
  return read(text, proxyConfig);
}

function read<T>(text: string, schema: z.ZodType<T>): T {
  const result = schema.safeParse(parseYaml(text) ?? {});
  if (result.success) return result.data;
  throw new Error(z.prettifyError(result.error).replaceAll("\n", " "));
}

function parseYaml(text: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    throw new Error(errorMessage(error).split("\n", 1)[0], { cause: error });
  }
}
