// Mutual TLS as HBONE wants it (ztunnel §1.1, §1.2): ALPN h2, no SNI, no resumption, and a SPIFFE check
// on both sides in place of host names. An unverified or revoked peer never gets a usable
// socket.

import type { ByteSocket } from "../net/byte-socket.ts";
import { errorMessage } from "../process/errors.ts";
import { hasIdentity, peerIdentities, type WorkloadCertificate } from "./certificate.ts";
import { type CertificationPath, pathOfPeer } from "./certification-path.ts";
import { type Identity, spiffeId, type SpiffeId } from "./identity.ts";
import type { Revocations } from "./revocations.ts";
import { DEFAULT_TLS_POLICY, type TlsPolicy } from "./tls-policy.ts";
import { HandshakeError, TlsSocket } from "./tls-socket.ts";

export type TlsFailureCode =
  | "HANDSHAKE"
  | "TIMEOUT"
  | "NO_CERTIFICATE"
  | "NO_IDENTITY"
  | "WRONG_IDENTITY"
  | "WRONG_TRUST_DOMAIN"
  | "REVOKED";

export type SecureResult =
  | {
      readonly ok: true;
      readonly socket: TlsSocket;
      readonly peer: Identity;
      /** Through whom the peer is trusted; only where revocations are looked at. */
      readonly path?: CertificationPath;
    }
  | { readonly ok: false; readonly code: TlsFailureCode; readonly reason: string };

/** Istio bounds no handshake; a peer that stalls one would hold its socket for ever. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

export interface SecureOptions {
  readonly policy?: TlsPolicy;
  /** Who is refused though everything else is right; absent, nobody. */
  readonly revocations?: Revocations | undefined;
}

type Refusal = Extract<SecureResult, { ok: false }>;

/** What is wrong with a peer whose chain is trusted. */
type Check = (identities: readonly Identity[]) => Refusal | undefined;

/**
 * The server side over an accepted socket. The client must present a certificate of our roots whose
 * trust domain is ours, and that is not revoked. On failure the socket is closed.
 */
export function secureServer(
  raw: ByteSocket,
  certificate: WorkloadCertificate,
  options: SecureOptions = {},
): Promise<SecureResult> {
  const { trustDomain } = certificate.identity;
  return secure("server", raw, certificate, options, (identities) => {
    if (identities.some((identity) => identity.trustDomain === trustDomain)) return undefined;
    const peer = spiffeId(identities[0]!);
    const reason = `peer ${peer} is not of trust domain ${trustDomain}`;
    return { ok: false, code: "WRONG_TRUST_DOMAIN", reason };
  });
}

/**
 * The client side over a connected socket. The server must present a certificate of our roots with one
 * of the `allowed` identities, and that is not revoked. On failure the socket is closed.
 */
export function secureClient(
  raw: ByteSocket,
  certificate: WorkloadCertificate,
  allowed: readonly SpiffeId[],
  options: SecureOptions = {},
): Promise<SecureResult> {
  return secure("client", raw, certificate, options, (identities) => {
    if (hasIdentity(identities, allowed)) return undefined;
    const wanted = allowed.length === 0 ? "nobody" : allowed.join(" or ");
    const reason = `peer is ${spiffeId(identities[0]!)}, expected ${wanted}`;
    return { ok: false, code: "WRONG_IDENTITY", reason };
  });
}

async function secure(
  role: "client" | "server",
  raw: ByteSocket,
  certificate: WorkloadCertificate,
  { policy = DEFAULT_TLS_POLICY, revocations }: SecureOptions,
  check: Check,
): Promise<SecureResult> {
  const socket = new TlsSocket(raw, policy.contextFor(certificate), role);
  const failure = await handshake(socket);
  const result = failure ?? verified(role, socket, certificate, revocations, check);
  if (!result.ok) socket.destroy();
  return result;
}

/** undefined when it is over and well. */
async function handshake(socket: TlsSocket): Promise<Refusal | undefined> {
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    socket.destroy();
  }, HANDSHAKE_TIMEOUT_MS);
  try {
    await socket.secure();
    // Closed between its end and here: there is no session to ask any more.
    if (!socket.destroyed) return undefined;
    return { ok: false, code: "HANDSHAKE", reason: "the peer closed after the TLS handshake" };
  } catch (error) {
    if (!(error instanceof HandshakeError)) throw error;
    const late = `no TLS handshake within ${HANDSHAKE_TIMEOUT_MS / 1000} s`;
    if (timedOut) return { ok: false, code: "TIMEOUT", reason: late };
    return { ok: false, code: "HANDSHAKE", reason: errorMessage(error) };
  } finally {
    clearTimeout(timer);
  }
}

/** Who is at the other end of a handshake that is over, if nothing speaks against them. */
function verified(
  role: "client" | "server",
  socket: TlsSocket,
  certificate: WorkloadCertificate,
  revocations: Revocations | undefined,
  check: Check,
): SecureResult {
  if (role === "client" && !socket.session.speaksH2) {
    const reason = "the peer does not speak HTTP/2 (no ALPN h2)";
    return { ok: false, code: "HANDSHAKE", reason };
  }
  const [leaf, ...presented] = socket.peerCertificates();
  if (leaf === undefined) {
    return { ok: false, code: "NO_CERTIFICATE", reason: "the peer presented no certificate" };
  }
  const identities = peerIdentities(leaf);
  const [peer] = identities;
  if (peer === undefined) {
    const reason = "the peer's certificate holds no SPIFFE identity";
    return { ok: false, code: "NO_IDENTITY", reason };
  }
  const result = check(identities) ?? { ok: true, socket, peer };
  if (!result.ok || revocations === undefined) return result;
  return unlessRevoked(result, pathOfPeer(leaf, presented, certificate), revocations);
}

/** Refuses who is verified, but revoked meanwhile. */
function unlessRevoked(
  result: Extract<SecureResult, { ok: true }>,
  path: CertificationPath | undefined,
  revocations: Revocations,
): SecureResult {
  if (path === undefined) {
    const reason = "the peer's certificate cannot be followed to a root, to see if it is revoked";
    return { ok: false, code: "HANDSHAKE", reason };
  }
  const objection = revocations.objectionTo(path);
  if (objection === undefined) return { ...result, path };
  return { ok: false, code: "REVOKED", reason: `peer ${spiffeId(result.peer)}: ${objection}` };
}
