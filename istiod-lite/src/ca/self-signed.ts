// The mesh's own root, kept in a folder as ca-cert.pem and ca-key.pem. It is renewed in time with the same
// key, so that what the old root signed and what the new one signs trust each other (Istio's way).

import { X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { createRoot, type SigningCa, signingRoot } from "@ambit/common/tls/issuer.ts";
import type { CertificateAuthority } from "./authority.ts";

const CERTIFICATE = "ca-cert.pem";
const KEY = "ca-key.pem";
/** A root is renewed within the last fifth of its life. */
const RENEWAL_SHARE = 0.2;
/** How often its age is looked at (Istio's interval). */
export const RENEWAL_CHECK_MS = 3_600_000;

/** The root of `folder`, made or renewed when needed. Throws what the file system throws. */
export function loadSelfSigned(folder: string, trustDomain: string, nowMs: number): SigningCa {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const [certificatePath, keyPath] = [join(folder, CERTIFICATE), join(folder, KEY)];
  const keyPem = existsSync(keyPath) ? readFileSync(keyPath, "utf8") : undefined;
  if (keyPem !== undefined && existsSync(certificatePath)) {
    const certificatePem = readFileSync(certificatePath, "utf8");
    if (!needsRenewal(certificatePem, nowMs)) return signingRoot({ certificatePem, keyPem });
  }
  const root = createRoot(trustDomain, nowMs, keyPem);
  writeAtomically(keyPath, root.keyPem);
  writeAtomically(certificatePath, root.certificatePem);
  return signingRoot(root);
}

function needsRenewal(certificatePem: string, nowMs: number): boolean {
  const { validFromDate, validToDate } = new X509Certificate(certificatePem);
  const lifeMs = validToDate.getTime() - validFromDate.getTime();
  return validToDate.getTime() - nowMs < lifeMs * RENEWAL_SHARE;
}

function writeAtomically(path: string, text: string): void {
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, text, { mode: 0o600 });
  renameSync(draft, path);
}

export interface RenewalOptions {
  readonly authority: CertificateAuthority;
  /** The authority's root as its folder has it, renewed when needed. */
  readonly load: () => SigningCa;
  readonly clock: Clock;
  /** In [0, 1); several istiods must not look at the same moment. */
  readonly random: () => number;
  readonly log: Logger;
}

/** Looks every hour whether the root needs renewal, or another process renewed it. */
export class RootRenewal {
  readonly #options: RenewalOptions;
  #timer: Timer;

  constructor(options: RenewalOptions) {
    this.#options = options;
    this.#timer = this.#schedule();
  }

  close(): void {
    this.#timer.cancel();
  }

  #schedule(): Timer {
    const { clock, random } = this.#options;
    return clock.after(RENEWAL_CHECK_MS * (0.5 + random() / 2), () => {
      this.#check();
      this.#timer = this.#schedule();
    });
  }

  #check(): void {
    const { authority, load, log } = this.#options;
    try {
      const ca = load();
      if (ca.certificatePem === authority.signingCa.certificatePem) return;
      authority.replace(ca);
      log.info("root certificate renewed");
    } catch (error) {
      log.warn("cannot renew the root certificate", { error: errorMessage(error) });
    }
  }
}
