// Revocation on this worker: the lists in force, and every live tunnel with the path its peer is trusted
// through. New handshakes ask the lists; a new list ends what it took back, at once (ztunnel §5.3).

import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { type CertificationPath, pathOfOwn } from "@ambit/common/tls/certification-path.ts";
import { type Identity, spiffeId } from "@ambit/common/tls/identity.ts";
import type { RevocationList } from "@ambit/common/tls/revocation-list.ts";
import type { SecureOptions, SecureResult } from "@ambit/common/tls/secure.ts";
import { Revocations } from "@ambit/common/tls/revocations.ts";
import { workloadIdentity } from "../state/workload.ts";
import type { MetricFamily } from "../telemetry/traffic-metrics.ts";
import type { ProxyContext } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";

export type RevocationReporter = "source" | "destination";

/** A tunnel whose peer was verified. */
export interface GuardedTunnel {
  readonly reporter: RevocationReporter;
  readonly peer: Identity;
  readonly path: CertificationPath;
  /** Cuts it, for this reason. */
  close(error: ProxyError): void;
}

/** A tunnel that a new list ends, and why. */
export interface EndedTunnel {
  readonly tunnel: GuardedTunnel;
  readonly error: ProxyError;
}

export class RevocationGuard {
  readonly revocations = new Revocations();
  /** By what their streams know them by. */
  readonly #tunnels = new Map<object, GuardedTunnel>();
  readonly #rejections = { source: 0, destination: 0 };

  get guardedTunnels(): number {
    return this.#tunnels.size;
  }

  /** Guards a tunnel until it is forgotten. */
  watch(tunnel: object, guarded: GuardedTunnel): void {
    this.#tunnels.set(tunnel, guarded);
  }

  forget(tunnel: object): void {
    this.#tunnels.delete(tunnel);
  }

  /** The error of a peer that was refused in its handshake. Counted. */
  refusal(reporter: RevocationReporter, reason: string): ProxyError {
    this.#rejections[reporter]++;
    return new ProxyError("CERT_REVOKED", reason);
  }

  /** Where there is no handshake: throws CERT_REVOKED when a certificate of ours was taken back. */
  requireOwn(certificate: WorkloadCertificate): void {
    const objection = this.objectionToOwn(certificate);
    if (objection === undefined) return;
    throw this.refusal("source", `${spiffeId(certificate.identity)}: ${objection}`);
  }

  objectionToOwn(certificate: WorkloadCertificate): string | undefined {
    const path = pathOfOwn(certificate);
    return path && this.revocations.objectionTo(path);
  }

  /** Takes new lists; returns the tunnels that they end, with why. Each counts as a rejection. */
  replace(lists: readonly RevocationList[]): Map<object, EndedTunnel> {
    this.revocations.replace(lists);
    const ended = new Map<object, EndedTunnel>();
    for (const [key, tunnel] of this.#tunnels) {
      const objection = this.revocations.objectionTo(tunnel.path);
      if (objection === undefined) continue;
      this.#rejections[tunnel.reporter]++;
      const peer = spiffeId(tunnel.peer);
      const why = `connection closed: peer ${peer}: ${objection}`;
      ended.set(key, { tunnel, error: new ProxyError("CERT_REVOKED", why) });
    }
    return ended;
  }

  collect(): MetricFamily[] {
    const values = (["source", "destination"] as const)
      .map((reporter) => ({ labels: { reporter }, value: this.#rejections[reporter] }))
      .filter(({ value }) => value > 0);
    if (values.length === 0) return [];
    return [
      {
        name: "istio_crl_policy_rejections",
        help: "The total number of connections rejected due to CRL certificate revocation (unstable)",
        type: "counter",
        aggregator: "sum",
        values,
      },
    ];
  }
}

/** How handshakes are made here, and whom they refuse. */
export function secureOptions({ tls, revocation }: ProxyContext): SecureOptions {
  return { policy: tls, revocations: revocation?.revocations };
}

/** What a failed handshake means. */
export function handshakeError(
  revocation: RevocationGuard | undefined,
  reporter: RevocationReporter,
  { code, reason }: Extract<SecureResult, { ok: false }>,
): ProxyError {
  const revoked = code === "REVOKED" ? revocation?.refusal(reporter, reason) : undefined;
  return revoked ?? new ProxyError("TLS_FAILED", reason);
}

/** Guards a tunnel that has just been secured. */
export function guard(
  revocation: RevocationGuard | undefined,
  reporter: RevocationReporter,
  { peer, path }: Extract<SecureResult, { ok: true }>,
  tunnel: object,
  close: (error: ProxyError) => void,
): void {
  if (path !== undefined) revocation?.watch(tunnel, { reporter, peer, path, close });
}

/** Puts new lists in force: connections over revoked tunnels end first, with the reason, then these. */
export function applyRevocations(context: ProxyContext, lists: readonly RevocationList[]): void {
  const { revocation, connections } = context;
  if (revocation === undefined) return;
  const ended = revocation.replace(lists);
  for (const { connection } of connections) {
    const end = connection.tunnel && ended.get(connection.tunnel);
    if (end !== undefined) connection.abort(end.error);
  }
  for (const { tunnel, error } of ended.values()) tunnel.close(error);
  endRevokedLocally(context, revocation);
}

/** Same-node connections have no tunnel: they rest on the certificates that we hold. */
function endRevokedLocally(
  { connections, certificates }: ProxyContext,
  revocation: RevocationGuard,
): void {
  for (const { connection, path, workload } of connections) {
    if (path !== "local") continue;
    const id = spiffeId(workloadIdentity(workload));
    const certificate = certificates.current(id);
    const objection = certificate && revocation.objectionToOwn(certificate);
    if (objection === undefined) continue;
    connection.abort(revocation.refusal("source", `connection closed: ${id}: ${objection}`));
  }
}
