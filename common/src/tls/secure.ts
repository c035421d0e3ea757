// Mutual TLS as HBONE wants it (ztunnel §1.1, §1.2): ALPN h2, no SNI, no resumption, and a SPIFFE check
// on both sides in place of host names. An unverified or revoked peer never gets a usable
// socket.

import type { Duplex } from "node:stream";
import type net from "node:net";
import tls from "node:tls";
import { X509Certificate } from "node:crypto";
import { errorCode, errorMessage } from "../process/errors.ts";
import { hasIdentity, peerIdentities, type WorkloadCertificate } from "./certificate.ts";
import { type CertificationPath, pathOfPeer } from "./certification-path.ts";
import { type Identity, spiffeId, type SpiffeId } from "./identity.ts";
import type { Revocations } from "./revocations.ts";
import { DEFAULT_TLS_POLICY, type TlsPolicy } from "./tls-policy.ts";

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
      readonly socket: tls.TLSSocket;
      readonly peer: Identity;
      /** Through whom the peer is trusted; only where revocations are looked at. */
      readonly path?: CertificationPath;
    }
  | { readonly ok: false; readonly code: TlsFailureCode; readonly reason: string };

/** Istio bounds no handshake; a peer that stalls one would hold its socket for ever. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

const ALPN = ["h2"];

export interface SecureOptions {
  readonly policy?: TlsPolicy;
  /** Who is refused though everything else is right; absent, nobody. */
  readonly revocations?: Revocations | undefined;
}

/**
 * The server side over an accepted socket. The client must present a certificate of our roots whose
 * trust domain is ours, and that is not revoked. On failure the socket is destroyed.
 */
export function secureServer(
  raw: net.Socket,
  certificate: WorkloadCertificate,
  { policy = DEFAULT_TLS_POLICY, revocations }: SecureOptions = {},
): Promise<SecureResult> {
  const socket = new tls.TLSSocket(raw, {
    isServer: true,
    secureContext: policy.contextFor(certificate),
    requestCert: true,
    rejectUnauthorized: true,
    ALPNProtocols: ALPN,
  });
  return new Promise((resolve) => {
    const settle = settler(raw, socket, resolve);
    socket.once("secure", () => {
      if (!authorizedByChain(socket)) {
        settle({ ok: false, code: "HANDSHAKE", reason: chainError(socket) });
        return;
      }
      const verified = verifyClient(socket, certificate.identity.trustDomain);
      settle(unlessRevoked(verified, certificate, revocations));
    });
  });
}

/**
 * The client side over a connected socket, or a stream that is one. The server must present a
 * certificate of our roots with one of the `allowed` identities, and that is not revoked. On failure
 * the socket is destroyed.
 */
export function secureClient(
  raw: Duplex,
  certificate: WorkloadCertificate,
  allowed: readonly SpiffeId[],
  { policy = DEFAULT_TLS_POLICY, revocations }: SecureOptions = {},
): Promise<SecureResult> {
  const socket = tls.connect({
    socket: raw,
    secureContext: policy.contextFor(certificate),
    ALPNProtocols: ALPN,
    rejectUnauthorized: true,
    checkServerIdentity: () => undefined,
  });
  return new Promise((resolve) => {
    const settle = settler(raw, socket, resolve);
    socket.once("secureConnect", () => {
      if (socket.alpnProtocol !== "h2") {
        settle({
          ok: false,
          code: "HANDSHAKE",
          reason: "the peer does not speak HTTP/2 (no ALPN h2)",
        });
        return;
      }
      settle(unlessRevoked(verifyServer(socket, allowed), certificate, revocations));
    });
  });
}

/** Resolves once; on failure or timeout nothing usable remains. */
function settler(
  raw: Duplex,
  socket: tls.TLSSocket,
  resolve: (result: SecureResult) => void,
): (result: SecureResult) => void {
  let settled = false;
  const settle = (result: SecureResult) => {
    if (settled) return;
    settled = true;
    clearTimeout(timer);
    socket.off("error", onError);
    raw.off("close", onClose);
    socket.off("end", onClose);
    if (!result.ok) {
      socket.on("error", () => undefined);
      socket.destroy();
      raw.destroy();
    }
    resolve(result);
  };
  const onError = (error: Error) =>
    settle({ ok: false, code: "HANDSHAKE", reason: handshakeReason(error) });
  const onClose = () =>
    settle({ ok: false, code: "HANDSHAKE", reason: "the peer closed during the TLS handshake" });
  const timer = setTimeout(() => {
    const reason = `no TLS handshake within ${HANDSHAKE_TIMEOUT_MS / 1000} s`;
    settle({ ok: false, code: "TIMEOUT", reason });
  }, HANDSHAKE_TIMEOUT_MS);
  socket.on("error", onError);
  raw.on("close", onClose);
  socket.on("end", onClose);
  socket.once("close", () => raw.destroy());
  return settle;
}

/** A server-side TLSSocket leaves the verdict to us: Node's https server checks it the same way. */
function authorizedByChain(socket: tls.TLSSocket): boolean {
  return verifyError(socket) === null;
}

function chainError(socket: tls.TLSSocket): string {
  if (socket.getPeerX509Certificate() === undefined) return "the peer presented no certificate";
  return `the peer's certificate is not trusted: ${verifyError(socket)?.message ?? "unknown"}`;
}

/** OpenSSL's verdict on the peer's chain. Node exposes it for servers only on the handle. */
function verifyError(socket: tls.TLSSocket): Error | null {
  const { _handle: handle } = socket as unknown as {
    _handle: { verifyError(): Error | null } | null;
  };
  return handle === null ? new Error("connection closed") : handle.verifyError();
}

function verifyClient(socket: tls.TLSSocket, trustDomain: string): SecureResult {
  return verifyPeer(socket, (identities) => {
    if (identities.some((identity) => identity.trustDomain === trustDomain)) return undefined;
    return {
      ok: false,
      code: "WRONG_TRUST_DOMAIN",
      reason: `peer ${spiffeId(identities[0]!)} is not of trust domain ${trustDomain}`,
    };
  });
}

function verifyServer(socket: tls.TLSSocket, allowed: readonly SpiffeId[]): SecureResult {
  return verifyPeer(socket, (identities) => {
    if (hasIdentity(identities, allowed)) return undefined;
    const wanted = allowed.length === 0 ? "nobody" : allowed.join(" or ");
    return {
      ok: false,
      code: "WRONG_IDENTITY",
      reason: `peer is ${spiffeId(identities[0]!)}, expected ${wanted}`,
    };
  });
}

/** Refuses who is verified, but revoked meanwhile; without `revocations` nobody is. */
function unlessRevoked(
  verified: SecureResult,
  certificate: WorkloadCertificate,
  revocations: Revocations | undefined,
): SecureResult {
  if (!verified.ok || revocations === undefined) return verified;
  const path = pathOfPeer(verified.socket, certificate);
  if (path === undefined) {
    const reason = "the peer's certificate cannot be followed to a root, to see if it is revoked";
    return { ok: false, code: "HANDSHAKE", reason };
  }
  const objection = revocations.objectionTo(path);
  if (objection === undefined) return { ...verified, path };
  return { ok: false, code: "REVOKED", reason: `peer ${spiffeId(verified.peer)}: ${objection}` };
}

function verifyPeer(
  socket: tls.TLSSocket,
  check: (identities: readonly Identity[]) => SecureResult | undefined,
): SecureResult {
  const certificate = socket.getPeerX509Certificate();
  if (!(certificate instanceof X509Certificate)) {
    return { ok: false, code: "NO_CERTIFICATE", reason: "the peer presented no certificate" };
  }
  const identities = peerIdentities(certificate);
  const [peer] = identities;
  if (peer === undefined) {
    return {
      ok: false,
      code: "NO_IDENTITY",
      reason: "the peer's certificate holds no SPIFFE identity",
    };
  }
  return check(identities) ?? { ok: true, socket, peer };
}

function handshakeReason(error: Error): string {
  const code = errorCode(error);
  return `TLS handshake failed: ${code ?? ""}${code && ": "}${errorMessage(error)}`;
}
