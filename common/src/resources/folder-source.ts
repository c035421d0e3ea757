// Resources from watched files and folders of YAML, hot-reloaded. A file that breaks keeps its last good
// version in force and is reported; a resource that two files define belongs to the first of them.

import { type FSWatcher, globSync, readFileSync, statSync, watch } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { type Clock, systemClock, type Timer } from "../process/clock.ts";
import { errorCode, errorMessage, UserError } from "../process/errors.ts";
import {
  keyOf,
  keyText,
  type ResourceEvent,
  type ResourceHandler,
  type ResourceKey,
  type ResourceSource,
  type SourceProblem,
} from "./source.ts";
import { parseManifest } from "./yaml-file.ts";

/** Editors write in several steps: look once they are done. */
const SETTLE_MS = 15;
/** inotify can lose events; everything is looked at again this often. */
const RESCAN_MS = 5_000;

interface KnownFile {
  readonly stamp: string;
  /** The last version without problems. */
  readonly resources: readonly Resource[];
  readonly problems: readonly SourceProblem[];
}

export class FolderSource implements ResourceSource {
  readonly #paths: readonly string[];
  readonly #clock: Clock;
  readonly #files = new Map<string, KnownFile>();
  readonly #watchers: FSWatcher[] = [];
  #current = new Map<string, Resource>();
  #problems: readonly SourceProblem[] = [];
  #handler: ResourceHandler | undefined;
  #settle: Timer | undefined;
  #rescan: Timer | undefined;

  /** `paths` are files or folders; folders are searched for *.yaml, *.yml and *.json, also below. */
  constructor(paths: readonly string[], clock: Clock = systemClock) {
    this.#paths = paths;
    this.#clock = clock;
  }

  /** Rejects with a UserError when a path does not exist. */
  start(handler: ResourceHandler): Promise<void> {
    this.#handler = handler;
    for (const path of this.#paths) this.#watch(path);
    this.#scan();
    this.#scheduleRescan();
    return Promise.resolve();
  }

  close(): void {
    this.#handler = undefined;
    this.#settle?.cancel();
    this.#rescan?.cancel();
    for (const watcher of this.#watchers) watcher.close();
  }

  #watch(path: string): void {
    try {
      const recursive = statSync(path).isDirectory();
      const watcher = watch(path, { recursive, persistent: true }, () => this.#scanSoon());
      watcher.on("error", () => watcher.close());
      this.#watchers.push(watcher);
    } catch (error) {
      const why = errorCode(error) === "ENOENT" ? "it does not exist" : errorMessage(error);
      throw new UserError(`cannot read manifests from ${path}: ${why}`);
    }
  }

  #scanSoon(): void {
    if (this.#handler === undefined) return;
    this.#settle ??= this.#clock.after(SETTLE_MS, () => {
      this.#settle = undefined;
      this.#scan();
    });
  }

  #scheduleRescan(): void {
    this.#rescan = this.#clock.after(RESCAN_MS, () => {
      this.#scan();
      this.#scheduleRescan();
    });
  }

  #scan(): void {
    const found = this.#paths.flatMap(listFiles);
    const gone = new Set(this.#files.keys());
    for (const file of found) {
      gone.delete(file);
      this.#read(file);
    }
    for (const file of gone) this.#files.delete(file);
    this.#publish(found);
  }

  #read(file: string): void {
    const before = this.#files.get(file);
    try {
      const { mtimeNs, size, ino } = statSync(file, { bigint: true });
      const stamp = `${ino}:${mtimeNs}:${size}`;
      if (before?.stamp === stamp) return;
      const parsed = parseManifest(readFileSync(file, "utf8"), file);
      const keepsLast = parsed.problems.length > 0 && before !== undefined;
      const resources = keepsLast ? before.resources : parsed.resources;
      this.#files.set(file, { stamp, resources, problems: parsed.problems });
    } catch (error) {
      if (errorCode(error) === "ENOENT") return;
      const problem = {
        file,
        line: 1,
        field: "",
        message: `cannot be read: ${errorMessage(error)}`,
      };
      this.#files.set(file, { stamp: "", resources: before?.resources ?? [], problems: [problem] });
    }
  }

  /** Compares what all files say together with what was said before, and tells the difference. */
  #publish(files: readonly string[]): void {
    const next = new Map<string, Resource>();
    const owner = new Map<string, string>();
    const problems: SourceProblem[] = [];
    for (const file of files) {
      const known = this.#files.get(file);
      problems.push(...(known?.problems ?? []));
      for (const resource of known?.resources ?? []) {
        const key = keyText(keyOf(resource));
        const first = owner.get(key);
        if (first === undefined) {
          owner.set(key, file);
          next.set(key, resource);
        } else problems.push(conflict(file, first, resource));
      }
    }
    const events = difference(this.#current, next);
    this.#current = next;
    if (events.length > 0) this.#handler?.onEvents(events);
    if (isDeepStrictEqual(problems, this.#problems)) return;
    this.#problems = problems;
    this.#handler?.onProblems(problems);
  }
}

function conflict(file: string, first: string, resource: Resource): SourceProblem {
  const { kind, namespace, name } = keyOf(resource);
  const where = first === file ? "above" : `in ${first}`;
  const message = `${kind} ${namespace && `${namespace}/`}${name} is already defined ${where}, which counts`;
  return { file, line: 1, field: "metadata.name", message };
}

function difference(
  before: ReadonlyMap<string, Resource>,
  after: ReadonlyMap<string, Resource>,
): ResourceEvent[] {
  const events: ResourceEvent[] = [];
  for (const [key, resource] of before) {
    if (!after.has(key))
      events.push({ type: "delete", key: keyOf(resource) satisfies ResourceKey });
  }
  for (const [key, resource] of after) {
    const old = before.get(key);
    if (old !== resource && !isDeepStrictEqual(old, resource))
      events.push({ type: "upsert", resource });
  }
  return events;
}

/** Files in a stable order; hidden ones and drafts of editors are left out. */
function listFiles(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
  } catch {
    return [];
  }
  return globSync("**/*.{yaml,yml,json}", { cwd: path })
    .filter((file) => !file.split("/").some((part) => part.startsWith(".")))
    .sort()
    .map((file) => join(path, file));
}
