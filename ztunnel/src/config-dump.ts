// `/config_dump` in the shape istioctl reads (ztunnel §7.3): one worker's view of the mesh, the
// certificates, the pods with their connections, and the configuration. No secret is in it.

import { X509Certificate } from "node:crypto";
import type { PodUsage } from "@ambit/common/telemetry/pod-usage.ts";
import type { Config } from "./config.ts";
import type { SecretState } from "./identity/secret-manager.ts";
import type { ConnectionSummary } from "./proxy/connection.ts";
import type { StateDump } from "./state/dump.ts";

export interface DumpParts {
  readonly config: Config;
  readonly state: StateDump;
  readonly secrets: readonly { readonly id: string; readonly state: SecretState }[];
  readonly connections: readonly ConnectionSummary[];
  readonly usage: ReadonlyMap<string, PodUsage>;
  readonly pods: {
    dump(
      connections: readonly ConnectionSummary[],
      usage: ReadonlyMap<string, PodUsage>,
    ): Record<string, unknown>;
  };
}

export function configDump(parts: DumpParts): Record<string, unknown> {
  const { config, state, secrets, connections, usage, pods } = parts;
  const { workloads, services, policies } = state;
  const isStatic = config.xdsAddress === undefined;
  return {
    ...state,
    staticConfig: isStatic
      ? { workloads, services, policies }
      : { workloads: [], services: [], policies: [] },
    version: { version: config.version, component: "ztunnel" },
    config: shownConfig(config),
    certificates: secrets
      .toSorted((a, b) => (a.id < b.id ? -1 : 1))
      .map(({ id, state: secret }) => dumpSecret(id, secret)),
    workloadState: pods.dump(connections, usage),
  };
}

/** AUTH_TOKEN may be the token itself rather than a path. */
function shownConfig(config: Config): Config {
  return config.authTokenFile.includes("/") ? config : { ...config, authTokenFile: "<redacted>" };
}

function dumpSecret(identity: string, secret: SecretState): Record<string, unknown> {
  if (secret.state !== "available") {
    const state =
      secret.state === "initializing" ? "Initializing" : `Unavailable: ${secret.reason}`;
    return { identity, state, certChain: [], rootCerts: [] };
  }
  const { leafPem, intermediatesPem, rootsPem } = secret.certificate;
  return {
    identity,
    state: "Available",
    certChain: [leafPem, ...intermediatesPem].map(dumpCertificate),
    rootCerts: rootsPem.map(dumpCertificate),
  };
}

/** istioctl expects the PEM in base64 once more. */
function dumpCertificate(pem: string): Record<string, string> {
  const { serialNumber, validFromDate, validToDate } = new X509Certificate(pem);
  return {
    pem: Buffer.from(pem).toString("base64"),
    serialNumber: BigInt(`0x${serialNumber}`).toString(),
    validFrom: rfc3339(validFromDate),
    expirationTime: rfc3339(validToDate),
  };
}

/** To the second: certificates know no less. */
function rfc3339(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, "Z");
}
