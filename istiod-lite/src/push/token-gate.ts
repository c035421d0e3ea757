// Who may open an xDS stream on the secure port: holders of a workload token, as the node they are.

import { type Metadata, status } from "@grpc/grpc-js";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { Authenticator } from "@ambit/common/xds/delta-server.ts";
import type { ClientNode } from "@ambit/common/xds/delta-session.ts";
import { RpcError } from "@ambit/common/xds/grpc-service.ts";
import { bearerToken, type Caller, type TokenAuthenticator } from "../ca/token-authenticator.ts";

/** Checks the bearer token; the node id must then be of the token's namespace and account. */
export function tokenGate(tokens: TokenAuthenticator, log: Logger): Authenticator {
  return async (metadata) => {
    const caller = await authenticate(tokens, metadata, log);
    return (node) => mismatch(caller, node);
  };
}

/** The caller is told only that it failed; the log has the reason. */
async function authenticate(
  tokens: TokenAuthenticator,
  metadata: Metadata,
  log: Logger,
): Promise<Caller> {
  try {
    const token = bearerToken(metadata.get("authorization")[0]?.toString());
    if (token === undefined) throw new Error("no bearer token");
    return await tokens.authenticate(token);
  } catch (error) {
    log.warn("xDS caller not authenticated", { error: errorMessage(error) });
    throw new RpcError(status.UNAUTHENTICATED, "authentication failure");
  }
}

/** Why the caller may not be this node; undefined when it may. */
export function mismatch(caller: Caller, node: ClientNode): string | undefined {
  const namespaces = [node.namespace, node.metadata["NAMESPACE"] ?? node.namespace];
  if (namespaces.some((namespace) => namespace !== caller.namespace)) {
    return `node ${node.id} is not of the caller's namespace ${caller.namespace}`;
  }
  const account = node.metadata["SERVICE_ACCOUNT"] ?? caller.serviceAccount;
  return account === caller.serviceAccount
    ? undefined
    : `node ${node.id} is not of the caller's service account ${caller.serviceAccount}`;
}
