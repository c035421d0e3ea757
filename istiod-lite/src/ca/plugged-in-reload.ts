// Follows the files of a plugged-in CA: an operator renews the intermediate, or rotates the root, without
// a restart. A change of roots must overlap: proxies trust the new root only once they have heard of it.

import { type FSWatcher, watch } from "node:fs";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { SigningCa } from "@ambit/common/tls/issuer.ts";
import type { CertificateAuthority } from "./authority.ts";
import { fingerprint, loadPluggedIn } from "./plugged-in.ts";

/** The files of a set are replaced one by one: look once they are quiet (Istio's interval). */
const SETTLE_MS = 100;

export interface PluggedInReloadOptions {
  readonly authority: CertificateAuthority;
  readonly folder: string;
  /** ISTIO_MULTIROOT_MESH: the set of roots may change, as long as the old and the new overlap. */
  readonly multiRoot: boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

export class PluggedInReload {
  readonly #options: PluggedInReloadOptions;
  readonly #watcher: FSWatcher;
  #settle: Timer | undefined;

  constructor(options: PluggedInReloadOptions) {
    this.#options = options;
    this.#watcher = watch(options.folder, () => this.#touched());
    this.#watcher.on("error", (error) => {
      options.log.warn("the CA folder is no longer watched", { error: errorMessage(error) });
    });
    this.#watcher.unref();
  }

  close(): void {
    this.#settle?.cancel();
    this.#watcher.close();
  }

  #touched(): void {
    this.#settle?.cancel();
    this.#settle = this.#options.clock.after(SETTLE_MS, () => this.reload());
  }

  /** Takes what the folder holds now, or says in the log why not and keeps what there is. */
  reload(): void {
    const { authority, folder, multiRoot, log } = this.#options;
    try {
      const next = loadPluggedIn(folder);
      if (isSame(authority.signingCa, next)) return;
      const refusal = rootChangeRefusal(authority.signingCa, next, multiRoot);
      if (refusal !== undefined) throw new Error(refusal);
      authority.replace(next);
      log.info("plugged-in CA reloaded", { folder, roots: next.rootsPem.length });
    } catch (error) {
      log.warn("plugged-in CA not reloaded", { folder, error: errorMessage(error) });
    }
  }
}

function isSame(before: SigningCa, after: SigningCa): boolean {
  const texts = ({ certificatePem, intermediatesPem, rootsPem }: SigningCa) =>
    [certificatePem, "", ...intermediatesPem, "", ...rootsPem].join();
  return texts(before) === texts(after) && before.privateKey.equals(after.privateKey);
}

/** Why a change of roots is not taken; undefined when it is, or when the roots stay. */
function rootChangeRefusal(
  before: SigningCa,
  after: SigningCa,
  multiRoot: boolean,
): string | undefined {
  const old = new Set(before.rootsPem.map(fingerprint));
  const next = new Set(after.rootsPem.map(fingerprint));
  if (old.isSubsetOf(next) && next.isSubsetOf(old)) return undefined;
  if (!multiRoot) return "its roots differ: set ISTIO_MULTIROOT_MESH=true to rotate them";
  if (old.isSubsetOf(next) || next.isSubsetOf(old)) return undefined;
  return "its roots replace others: keep the old and the new ones together for a while first";
}
