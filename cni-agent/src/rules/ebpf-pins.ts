// The node's pins in bpffs, and the one rule for each attachment: what is there already is updated in
// place, what is attached elsewhere or to nothing any more is replaced.
//   <bpffs>/ambit/<node>/maps-v<layout>/<map>   links/<program>   proxies/<cgroup id>   kubelets/<cgroup id>
//   pods/<netns cookie>   shortcuts/<netns cookie>

import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import {
  type AttachTypeNumber,
  createLink,
  linkInfo,
  updateLink,
} from "@ambit/common/sys/bpf-link.ts";
import { openPinned, pinObject } from "@ambit/common/sys/bpf-map.ts";
import { closeFd, SystemError } from "@ambit/common/sys/libc.ts";

const KINDS = ["links", "proxies", "kubelets", "pods", "shortcuts"] as const;
export type LinkKind = (typeof KINDS)[number];

export interface Attachment {
  readonly kind: LinkKind;
  readonly name: string;
  readonly programFd: number;
  /** A cgroup's folder or a network namespace, open; or an interface of this thread's, by its index. */
  readonly target: number;
  /** The number by which the kernel knows it. */
  readonly targetId: bigint;
  readonly type: AttachTypeNumber;
}

export class Pins {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
    for (const kind of KINDS) this.#makeFolder(kind);
  }

  /** Attaches a program for good; one that is attached there already is replaced without a gap. */
  attach(attachment: Attachment): void {
    const { kind, name, programFd, target, targetId, type } = attachment;
    if (this.target(kind, name) === targetId) {
      return this.#withLink(kind, name, (fd) => updateLink(fd, programFd));
    }
    this.detach(kind, name);
    this.#makeFolder(kind);
    const fd = createLink(programFd, target, type);
    try {
      pinObject(fd, this.#path(kind, name));
    } finally {
      closeFd(fd);
    }
  }

  /** What a link is attached to: 0 when that is gone, undefined when there is no such link. */
  target(kind: LinkKind, name: string): bigint | undefined {
    try {
      return this.#withLink(kind, name, (fd) => linkInfo(fd).target);
    } catch (error) {
      if (error instanceof SystemError && error.code === "ENOENT") return undefined;
      throw error;
    }
  }

  has(kind: LinkKind, name: string): boolean {
    return existsSync(this.#path(kind, name));
  }

  detach(kind: LinkKind, name: string): void {
    rmSync(this.#path(kind, name), { force: true });
  }

  names(kind: LinkKind): string[] {
    const folder = join(this.root, kind);
    return existsSync(folder) ? readdirSync(folder) : [];
  }

  /** Folders of maps of other layouts than the one in `folder`. */
  otherMaps(folder: string): string[] {
    const others = (name: string) => name.startsWith("maps-v") && name !== basename(folder);
    return readdirSync(this.root).filter(others);
  }

  /** Of other layouts: no program that is loaded from now on uses them. */
  removeOtherMaps(folder: string): void {
    for (const name of this.otherMaps(folder)) {
      rmSync(join(this.root, name), { recursive: true, force: true });
    }
  }

  /** Detaches everything and forgets all state: nothing of ours is left in the kernel. */
  removeAll(): void {
    rmSync(this.root, { recursive: true, force: true });
  }

  /** Readable by root only. */
  #makeFolder(kind: LinkKind): void {
    mkdirSync(join(this.root, kind), { recursive: true, mode: 0o700 });
  }

  #withLink<T>(kind: LinkKind, name: string, action: (fd: number) => T): T {
    const fd = openPinned(this.#path(kind, name));
    try {
      return action(fd);
    } finally {
      closeFd(fd);
    }
  }

  #path(kind: LinkKind, name: string): string {
    return join(this.root, kind, name);
  }
}
