// Follows the mesh configuration: a folder that holds it as files, the way a ConfigMap is mounted, and the
// ConfigMap itself among the resources, which beats the folder key by key. What does not parse is reported,
// and the last good version stays in force.

import { type FSWatcher, readFileSync, watch } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { errorCode, errorMessage, UserError } from "@ambit/common/process/errors.ts";
import type { ResourceEvent, SourceProblem } from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { type MeshConfig, type MeshConfigData, parseMeshConfig } from "./mesh-config.ts";

const KEYS = ["mesh", "ambit"] as const;
/** A mounted ConfigMap is replaced in several steps: look once they are done. */
const SETTLE_MS = 100;

export interface MeshConfigWatchOptions {
  readonly folder: string | undefined;
  /** Of the ConfigMap. */
  readonly namespace: string;
  readonly name: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when what holds has changed; first by start(), if there is anything. */
  readonly onChange: (config: MeshConfig) => void;
  /** Everything that is wrong now. */
  readonly onProblems: (problems: readonly SourceProblem[]) => void;
}

export class MeshConfigWatch {
  readonly #options: MeshConfigWatchOptions;
  #watcher: FSWatcher | undefined;
  #settle: Timer | undefined;
  #files: MeshConfigData = {};
  #object: MeshConfigData = {};
  #current: MeshConfig = parseMeshConfig({});
  #problem = "";

  constructor(options: MeshConfigWatchOptions) {
    this.#options = options;
  }

  /** What holds now. */
  get current(): MeshConfig {
    return this.#current;
  }

  /** Throws UserError when the folder cannot be read, or what is in it is wrong: there is no last good one. */
  start(): void {
    const { folder, log } = this.#options;
    if (folder === undefined) return;
    try {
      this.#files = readFiles(folder);
      this.#take(parseMeshConfig(this.#files));
      this.#watcher = watch(folder, () => this.#touched());
    } catch (error) {
      throw new UserError(`MESH_CONFIG_DIR ${folder}: ${errorMessage(error)}`);
    }
    this.#watcher.on("error", (error) => {
      log.warn("the mesh configuration is no longer watched", { error: errorMessage(error) });
    });
    this.#watcher.unref();
  }

  close(): void {
    this.#settle?.cancel();
    this.#watcher?.close();
  }

  /** Looks for the ConfigMap among the events. */
  apply(events: readonly ResourceEvent[]): void {
    const { namespace, name } = this.#options;
    for (const event of events) {
      if (event.type === "upsert") {
        const { resource } = event;
        if (resource.kind !== "ConfigMap") continue;
        const { metadata, data = {} } = resource;
        if (metadata.name === name && metadata.namespace === namespace) this.#object = data;
      } else {
        const { key } = event;
        if (key.kind !== "ConfigMap" || key.name !== name || key.namespace !== namespace) continue;
        this.#object = {};
      }
      this.#parse();
    }
  }

  #touched(): void {
    this.#settle?.cancel();
    this.#settle = this.#options.clock.after(SETTLE_MS, () => this.reload());
  }

  /** Reads the folder again. */
  reload(): void {
    try {
      this.#files = readFiles(this.#options.folder!);
    } catch (error) {
      this.#report(errorMessage(error));
      return;
    }
    this.#parse();
  }

  #parse(): void {
    try {
      const next = parseMeshConfig({ ...this.#files, ...this.#object });
      this.#report("");
      this.#take(next);
    } catch (error) {
      this.#report(errorMessage(error));
    }
  }

  #take(next: MeshConfig): void {
    if (isDeepStrictEqual(next, this.#current)) return;
    this.#current = next;
    this.#options.onChange(next);
  }

  #report(problem: string): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    const { namespace, name, onProblems } = this.#options;
    const place = { file: `ConfigMap ${namespace}/${name}`, line: 1, field: "data" };
    onProblems(problem === "" ? [] : [{ ...place, message: problem }]);
  }
}

/** A key without file is not set. */
function readFiles(folder: string): MeshConfigData {
  const data: Record<string, string> = {};
  for (const key of KEYS) {
    try {
      data[key] = readFileSync(join(folder, key), "utf8");
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
  return data;
}
