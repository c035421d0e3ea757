// FAKE_CA=true: certificates signed in this process, for running a ztunnel without a control plane.
// With FAKE_CA_FOLDER several processes share one root, so that they trust each other.

import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { certificateFromChain, type WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { createCsr, parseCsr } from "@ambit/common/tls/csr.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";
import {
  type CaFiles,
  createRoot,
  type SigningCa,
  signingRoot,
  signWorkload,
} from "@ambit/common/tls/issuer.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorCode } from "@ambit/common/process/errors.ts";
import type { CaClient } from "./ca-client.ts";

export interface FakeCaOptions {
  readonly folder: string | undefined;
  readonly trustDomain: string;
  readonly ttlSeconds: number;
  readonly clock: Clock;
}

export class FakeCa implements CaClient {
  readonly #ca: SigningCa;
  readonly #ttlMs: number;
  readonly #clock: Clock;

  constructor({ folder, trustDomain, ttlSeconds, clock }: FakeCaOptions) {
    const root =
      folder === undefined
        ? createRoot(trustDomain, clock.nowMs())
        : sharedRoot(folder, trustDomain, clock);
    this.#ca = signingRoot(root);
    this.#ttlMs = ttlSeconds * 1000;
    this.#clock = clock;
  }

  fetch(identity: Identity): Promise<WorkloadCertificate> {
    const { csrPem, keyPem } = createCsr(identity);
    const chain = signWorkload(this.#ca, {
      publicKey: parseCsr(csrPem),
      identity,
      ttlMs: this.#ttlMs,
      nowMs: this.#clock.nowMs(),
    });
    return Promise.resolve(certificateFromChain(identity, keyPem, chain));
  }

  close(): void {}
}

/** The first process to come makes the root: a link publishes it whole, and never replaces another's. */
function sharedRoot(folder: string, trustDomain: string, clock: Clock): CaFiles {
  const path = join(folder, "fake-root.json");
  if (!existsSync(path)) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const draft = `${path}.${process.pid}`;
    writeFileSync(draft, JSON.stringify(createRoot(trustDomain, clock.nowMs())), { mode: 0o600 });
    publish(draft, path);
  }
  return JSON.parse(readFileSync(path, "utf8")) as CaFiles;
}

function publish(draft: string, path: string): void {
  try {
    linkSync(draft, path);
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
  } finally {
    rmSync(draft);
  }
}
