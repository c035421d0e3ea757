// Follows the mesh configuration: a folder that holds it as files, the way a ConfigMap is mounted, and the
// ConfigMap itself among the resources, which beats the folder key by key. What does not parse is reported,
// and the last good version stays in force.

import { statSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { FileFollower } from "@ambit/common/process/file-follower.ts";
import type { ResourceEvent, SourceProblem } from "@ambit/common/resources/source.ts";
import { type MeshConfig, type MeshConfigData, parseMeshConfig } from "./mesh-config.ts";

const KEYS = ["mesh", "ambit"] as const;

export interface MeshConfigWatchOptions {
  readonly folder: string | undefined;
  /** Of the ConfigMap. */
  readonly namespace: string;
  readonly name: string;
  readonly clock: Clock;
  /** Called when what holds has changed; first by start(), if there is anything. */
  readonly onChange: (config: MeshConfig) => void;
  /** Everything that is wrong now. */
  readonly onProblems: (problems: readonly SourceProblem[]) => void;
}

export class MeshConfigWatch {
  readonly #options: MeshConfigWatchOptions;
  readonly #followers: FileFollower[] = [];
  /** By key; one without file is not set. */
  readonly #files: Record<string, string> = {};
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
    const { folder, clock } = this.#options;
    if (folder === undefined) return;
    try {
      statSync(folder);
      let started = false;
      for (const key of KEYS) {
        const follower = new FileFollower({
          path: join(folder, key),
          clock,
          onContent: (content) => {
            if (content === undefined) delete this.#files[key];
            else this.#files[key] = content.toString("utf8");
            if (started) this.#parse();
          },
          onError: (reason) => this.#report(reason),
        });
        this.#followers.push(follower);
      }
      this.#take(parseMeshConfig(this.#files));
      started = true;
    } catch (error) {
      throw new UserError(`MESH_CONFIG_DIR ${folder}: ${errorMessage(error)}`);
    }
  }

  close(): void {
    for (const follower of this.#followers) follower.close();
  }

  /** Looks for the ConfigMap among the events. */
  apply(events: readonly ResourceEvent[]): void {
    const { namespace, name } = this.#options;
    for (const event of events) {
      const key = event.type === "upsert" ? event.resource.metadata : event.key;
      const kind = event.type === "upsert" ? event.resource.kind : event.key.kind;
      if (kind !== "ConfigMap" || key.name !== name || key.namespace !== namespace) continue;
      const found = event.type === "upsert" ? event.resource : undefined;
      this.#object = found?.kind === "ConfigMap" ? (found.data ?? {}) : {};
      this.#parse();
    }
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
