// The project's BPF object, loaded into the kernel: a chosen set of its programs, over maps that are new
// or already there. Owns the descriptors until `close`; what is pinned or attached stays.

import { readFileSync } from "node:fs";
import { Counter, MAPS, STRUCTS } from "./bpf-layout.gen.ts";
import { call } from "./libc.ts";
import { check, libbpf, type Opaque } from "./libbpf.ts";

export type MapName = keyof typeof MAPS;
export type ProgramName =
  | "connect4"
  | "connect6"
  | "sendmsg4"
  | "sendmsg6"
  | "recvmsg4"
  | "recvmsg6"
  | "getpeername4"
  | "getpeername6"
  | "node_sockops"
  | "proxy_sockops"
  | "kubelet_sockops"
  | "steer"
  | "shortcut";

export const MAP_NAMES = Object.keys(MAPS) as MapName[];

export interface LoadOptions {
  readonly programs: readonly ProgramName[];
  /** Maps to be used instead of new ones. */
  readonly maps?: ReadonlyMap<MapName, number>;
  /** The slot that `steer` serves. */
  readonly slot?: number;
  /** The cookie of the node's own network namespace, for `kubelet_sockops`. */
  readonly nodeNetns?: bigint;
}

export interface LoadedObject extends Disposable {
  readonly programs: ReadonlyMap<ProgramName, number>;
  /** Descriptors; those given in `maps` are duplicates of the caller's. */
  readonly maps: ReadonlyMap<MapName, number>;
}

const OBJECT_FILE = new URL("../../../bpf/ambit.bpf.o", import.meta.url);
/** The verifier's words are for people: the last of them say what it did not like. */
const LOG_BYTES = 64 * 1024;
const LOG_SHOWN_CHARS = 600;
const F_DUPFD_CLOEXEC = 1030;

let objectFile: Buffer | undefined;

/** Loads programs; throws with the verifier's last words, or SystemError when the kernel refuses. */
export function loadObject(options: LoadOptions): LoadedObject {
  const lib = libbpf();
  objectFile ??= readFileSync(OBJECT_FILE);
  const object = lib.openMemory(objectFile, objectFile.length, null) as Opaque;
  if (object === null) throw new Error(`${OBJECT_FILE.pathname} is not a BPF object`);
  try {
    const log = prepare(object, options);
    const result = lib.load(object) as number;
    if (result < 0) throw refusal(result, log);
    return collect(object, options.programs);
  } finally {
    lib.close(object);
  }
}

/** Chooses programs and maps, before loading. Returns where the verifier will write. */
function prepare(object: Opaque, options: LoadOptions): Buffer {
  const { programs, maps } = options;
  const lib = libbpf();
  const log = Buffer.alloc(LOG_BYTES);
  const wanted: ReadonlySet<string> = new Set(programs);
  for (let at = lib.nextProgram(object, null); at !== null; at = lib.nextProgram(object, at)) {
    const name = lib.programName(at) as string;
    check(lib.setAutoload(at, wanted.has(name)) as number, name);
    check(lib.setLogBuffer(at, log, log.length) as number, name);
  }
  for (const [name, fd] of maps ?? []) {
    check(lib.reuseFd(lib.findMap(object, name), fd) as number, `map ${name}`);
  }
  const settings = encodeSettings(options);
  const rodata = lib.findMap(object, ".rodata");
  check(lib.setInitialValue(rodata, settings, settings.length) as number, ".rodata");
  return log;
}

function encodeSettings({ slot = 0, nodeNetns = 0n }: LoadOptions): Buffer {
  const { settings } = STRUCTS;
  const bytes = Buffer.alloc(settings.bytes);
  bytes.writeBigUInt64LE(nodeNetns, settings.nodeNetns);
  bytes.writeUInt32LE(slot, settings.slot);
  bytes.writeUInt32LE(Object.keys(Counter).length, settings.counters);
  return bytes;
}

function collect(object: Opaque, programs: readonly ProgramName[]): LoadedObject {
  const lib = libbpf();
  const duplicate = (fd: number) => call("fcntl", "F_DUPFD_CLOEXEC", fd, F_DUPFD_CLOEXEC, 3);
  const programFds = new Map(
    programs.map((name) => [
      name,
      duplicate(lib.programFd(lib.findProgram(object, name)) as number),
    ]),
  );
  const mapFds = new Map(
    MAP_NAMES.map((name) => [name, duplicate(lib.mapFd(lib.findMap(object, name)) as number)]),
  );
  return {
    programs: programFds,
    maps: mapFds,
    [Symbol.dispose]: () => {
      for (const fd of [...programFds.values(), ...mapFds.values()]) call("close", "", fd);
    },
  };
}

function refusal(result: number, log: Buffer): Error {
  const text = log.toString("utf8", 0, Math.max(0, log.indexOf(0))).trim();
  try {
    check(result, "loading the BPF programs");
  } catch (error) {
    if (text === "") return error as Error;
    return new Error(`the kernel refuses a BPF program: …${text.slice(-LOG_SHOWN_CHARS)}`, {
      cause: error,
    });
  }
  return new Error("loading the BPF programs failed");
}
