// IstioCertificateService: authenticates the caller, decides whom the certificate is for, and signs.
// Refusals are deliberately opaque to the caller; the log has the reason.

import { status } from "@grpc/grpc-js";
import { create } from "@bufbuild/protobuf";
import {
  type IstioCertificateRequest,
  type IstioCertificateResponse,
  IstioCertificateResponseSchema,
  type IstioCertificateService,
} from "@ambit/api/gen/istio/citadel_pb.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { type Identity, parseSpiffeId } from "@ambit/common/tls/identity.ts";
import {
  type CallContext,
  RpcError,
  type ServiceHandlers,
} from "@ambit/common/xds/grpc-service.ts";
import { type CertificateAuthority, SigningError } from "./authority.ts";
import type { NodeAuthorizer } from "./node-authorizer.ts";
import { bearerToken, type Caller, type TokenAuthenticator } from "./token-authenticator.ts";

/** Outcomes, as citadel_* metrics count them. */
export interface CertificateObserver {
  onRequest(): void;
  onAuthenticationFailure(): void;
  onCsrError(): void;
  onIssued(): void;
}

export interface CertificateServiceOptions {
  readonly authority: CertificateAuthority;
  readonly authenticator: TokenAuthenticator;
  readonly nodes: NodeAuthorizer;
  /** Of the identities issued now. */
  readonly trustDomain: () => string;
  readonly log: Logger;
  readonly observer: CertificateObserver;
}

const IMPERSONATED = "ImpersonatedIdentity";

export function certificateService(
  options: CertificateServiceOptions,
): ServiceHandlers<typeof IstioCertificateService> {
  return { createCertificate: (request, context) => createCertificate(options, request, context) };
}

async function createCertificate(
  options: CertificateServiceOptions,
  request: IstioCertificateRequest,
  context: CallContext,
): Promise<IstioCertificateResponse> {
  const { authority, log, observer } = options;
  observer.onRequest();
  const caller = await authenticate(options, context);
  const identity = identityFor(options, caller, request);
  try {
    const certChain = authority.sign(request.csr, identity, Number(request.validityDuration));
    observer.onIssued();
    log.debug("certificate issued", {
      namespace: identity.namespace,
      account: identity.serviceAccount,
    });
    return create(IstioCertificateResponseSchema, { certChain });
  } catch (error) {
    if (!(error instanceof SigningError)) throw error;
    observer.onCsrError();
    throw new RpcError(status.INVALID_ARGUMENT, `CSR signing error: ${error.message}`);
  }
}

async function authenticate(
  { authenticator, log, observer }: CertificateServiceOptions,
  { metadata, peer }: CallContext,
): Promise<Caller> {
  try {
    const token = bearerToken(metadata.get("authorization")[0]?.toString());
    if (token === undefined) throw new Error("no bearer token");
    return await authenticator.authenticate(token);
  } catch (error) {
    observer.onAuthenticationFailure();
    log.warn("caller not authenticated", { peer, error: errorMessage(error) });
    throw new RpcError(status.UNAUTHENTICATED, "request authenticate failure");
  }
}

/** The caller's own identity, or the one it may impersonate. */
function identityFor(
  { nodes, trustDomain, log, observer }: CertificateServiceOptions,
  caller: Caller,
  request: IstioCertificateRequest,
): Identity {
  const wanted = request.metadata?.[IMPERSONATED];
  if (typeof wanted !== "string" || wanted === "") {
    return {
      trustDomain: trustDomain(),
      namespace: caller.namespace,
      serviceAccount: caller.serviceAccount,
    };
  }
  const identity = parseSpiffeId(wanted);
  const refusal =
    identity === undefined
      ? `"${wanted}" is not a SPIFFE identity`
      : nodes.refusal(caller, identity);
  if (identity !== undefined && refusal === undefined) return identity;
  observer.onAuthenticationFailure();
  log.warn("impersonation refused", {
    caller: `${caller.namespace}/${caller.serviceAccount}`,
    wanted,
    reason: refusal,
  });
  throw new RpcError(status.UNAUTHENTICATED, "request impersonation authentication failure");
}
