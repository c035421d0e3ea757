// The control plane as a client is told of it: where, with which root, and who we say we are
// (ztunnel §5.1). Root and token are read anew for every connection: both are rotated.

import { readFileSync } from "node:fs";
import type { SecureContextOptions } from "node:tls";
import { errorMessage } from "../process/errors.ts";
import type { ChannelTarget } from "./grpc-channel.ts";

export interface ControlPlane {
  /** "https://host:port", or "http://" for plain text. */
  readonly address: string;
  /** A file, the literal SYSTEM, or inline PEM. */
  readonly rootCa: string;
  /** A file with the service account token, or the token itself. */
  readonly token: string;
  readonly clusterId: string;
  /** Also accepted as the server's name. */
  readonly alternativeHostname?: string | undefined;
  /** Which TLS is spoken with it; Node's defaults when absent. */
  readonly tls?: SecureContextOptions;
  /** Sent with every call besides ours. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Throws an Error that names the root file when it cannot be read. */
export function channelTarget(controlPlane: ControlPlane): ChannelTarget {
  const { address, rootCa, alternativeHostname, tls } = controlPlane;
  if (address.startsWith("http://")) return { address };
  const target = { address, alternativeHostname, ...(tls && { tls }) };
  if (rootCa === "SYSTEM") return target;
  if (rootCa.includes("-----BEGIN")) return { ...target, rootPem: rootCa };
  try {
    return { ...target, rootPem: readFileSync(rootCa, "utf8") };
  } catch (error) {
    throw new Error(`cannot read the control plane's root certificate: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/** The headers of every call. Throws when the token file is there but empty. */
export function callMetadata(controlPlane: ControlPlane): Record<string, string> {
  const { token, clusterId, headers } = controlPlane;
  const value = readToken(token);
  return {
    ...headers,
    clusterid: clusterId,
    ...(value !== undefined && { authorization: `Bearer ${value}` }),
  };
}

/** undefined when there is no token at all: a plain-text control plane asks for none. */
function readToken(token: string): string | undefined {
  if (!token.includes("/")) return token === "" ? undefined : token;
  let text: string;
  try {
    text = readFileSync(token, "utf8").trim();
  } catch {
    return undefined;
  }
  if (text === "") throw new Error(`the token file ${token} is empty`);
  return text;
}
