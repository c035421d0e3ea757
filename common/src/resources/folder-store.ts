// The cluster of local mode: a folder with one file per object, written atomically by several processes
// (the runtime, the node agents, the CLI). A lock file serialises writers; readers need none.

import { randomUUID } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { stringify } from "yaml";
import {
  KINDS,
  type Resource,
  type ResourceKind,
  type ResourceOf,
} from "@ambit/api/resources/kinds.ts";
import { errorCode, UserError } from "../process/errors.ts";
import { formatProblem, keyOf, type ResourceKey, type ResourceWriter } from "./source.ts";
import { parseManifest } from "./yaml-file.ts";

const LOCK = ".lock";
const LOCK_RETRY_MS = 2;
/** No write takes this long: whoever holds the lock longer has crashed. */
const LOCK_STALE_MS = 3_000;
const LOCK_WAIT_MAX_MS = 10_000;

export class FolderStore implements ResourceWriter {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  /** The object, or undefined. Throws UserError when its file is broken. */
  get<K extends ResourceKind>(key: ResourceKey & { readonly kind: K }): ResourceOf<K> | undefined;
  get(key: ResourceKey): Resource | undefined {
    const path = join(this.folder, fileName(key));
    if (!existsSync(path)) return undefined;
    const { resources, problems } = parseManifest(readFileSync(path, "utf8"), path);
    const [problem] = problems;
    if (problem !== undefined) throw new UserError(formatProblem(problem));
    return resources[0];
  }

  /** Every object of a kind, by namespace and name. Broken files are left out. */
  list<K extends ResourceKind>(kind: K): ResourceOf<K>[] {
    const files = readdirSync(this.folder).filter((file) =>
      file.startsWith(`${kind.toLowerCase()}.`),
    );
    return files.sort().flatMap((file) => {
      try {
        const { resources } = parseManifest(readFileSync(join(this.folder, file), "utf8"), file);
        return resources as ResourceOf<K>[];
      } catch {
        return [];
      }
    });
  }

  /** Creates or replaces; status, uid and creation time of an existing object are kept. */
  put(resource: Resource): Promise<void> {
    return this.#locked(() => {
      const before = this.get(keyOf(resource));
      const merged = before === undefined ? resource : keepManaged(before, resource);
      this.#write(merged, before);
    });
  }

  /** False when there was nothing to delete. */
  delete(key: ResourceKey): Promise<boolean> {
    return this.#locked(() => {
      const path = join(this.folder, fileName(key));
      if (!existsSync(path)) return false;
      rmSync(path);
      return true;
    });
  }

  patch(key: ResourceKey, change: (resource: Resource) => Resource): Promise<boolean> {
    return this.#locked(() => {
      const before = this.get(key);
      if (before === undefined) return false;
      const given = structuredClone(before);
      const after = change(given);
      // Handed back as it was given: no write, no event, no new version.
      if (after !== given || !isDeepStrictEqual(after, before)) this.#write(after, before);
      return true;
    });
  }

  #write(resource: Resource, before: Resource | undefined): void {
    const version = Number(before?.metadata.resourceVersion ?? 0) + 1;
    const stamped = {
      ...resource,
      metadata: {
        ...resource.metadata,
        uid: before?.metadata.uid ?? resource.metadata.uid ?? randomUUID(),
        creationTimestamp: before?.metadata.creationTimestamp ?? new Date().toISOString(),
        resourceVersion: String(version),
        generation: generationOf(resource, before),
      },
    };
    const path = join(this.folder, fileName(keyOf(resource)));
    const draft = join(this.folder, `.${process.pid}.${randomUUID()}`);
    writeFileSync(draft, stringify(stamped));
    renameSync(draft, path);
  }

  async #locked<T>(action: () => T): Promise<T> {
    const lock = join(this.folder, LOCK);
    const startedMs = performance.now();
    while (!tryLock(lock)) {
      if (performance.now() - startedMs > LOCK_WAIT_MAX_MS) {
        throw new UserError(`${lock} is held by another process: remove it if none is running`);
      }
      await delay(LOCK_RETRY_MS);
    }
    try {
      return action();
    } finally {
      rmSync(lock, { force: true });
    }
  }
}

/** As Kubernetes: counts what users changed, neither status nor metadata. */
function generationOf(resource: Resource, before: Resource | undefined): number {
  if (before === undefined) return 1;
  const wish = (object: Resource) => ({ ...object, metadata: undefined, status: undefined });
  const { generation = 1 } = before.metadata;
  return isDeepStrictEqual(wish(resource), wish(before)) ? generation : generation + 1;
}

/** Creates the lock file; takes over one whose owner crashed. */
function tryLock(lock: string): boolean {
  try {
    closeSync(openSync(lock, "wx"));
    return true;
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
  }
  try {
    if (performance.timeOrigin + performance.now() - statSync(lock).mtimeMs > LOCK_STALE_MS)
      rmSync(lock, { force: true });
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
  return false;
}

/** "pod.shop.reviews-1.yaml"; kinds without namespace leave it empty. */
export function fileName({ kind, namespace, name }: ResourceKey): string {
  return `${kind.toLowerCase()}.${KINDS[kind].namespaced ? namespace : ""}.${name}.yaml`;
}

/** What controllers wrote is not the user's to erase by applying a manifest again. */
function keepManaged(before: Resource, after: Resource): Resource {
  const status =
    "status" in before && !("status" in after && after.status) ? { status: before.status } : {};
  return { ...after, ...status } as Resource;
}
