// A node that lacks something of the kernel's, as a process of its own: takes that away from itself, asks the gate,
// and prints what the gate says. Run by ebpf-gate-features.netns.test.ts, which tells it what, as JSON.

import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { addressOf, callNumber } from "@ambit/common/sys/libc.ts";
import { GateError, type GateOptions, openEbpf } from "../rules/ebpf-gate.ts";
import { NftablesBackend } from "../rules/nftables-backend.ts";

/** A system call that fails, of all those with this number or only where arguments have these values. */
export interface MissingCall {
  readonly number: number;
  /** By their place; their lower halves. */
  readonly arguments?: Readonly<Record<number, number>>;
  readonly errno: number;
}

export interface GateTrial {
  readonly options: Pick<GateOptions, "bpfFs" | "cgroup">;
  readonly missing?: MissingCall;
  /** The programs as they would be without some feature: one trial each, in this process. */
  readonly objects?: readonly string[];
}

const SECCOMP: Readonly<Record<string, number>> = { x64: 317, arm64: 277 };
const SET_MODE_FILTER = 1;
/** All threads of the process. */
const FLAG_TSYNC = 1;
/** linux/filter.h, linux/seccomp.h. */
const [LOAD, JUMP_EQUAL, RETURN] = [0x20, 0x15, 0x06];
const [ALLOW, FAIL] = [0x7fff_0000, 0x0005_0000];
const [NUMBER_AT, ARGUMENTS_AT] = [0, 16];

/** From now on, for all of this process; seccomp(2): a filter of classic BPF, eight bytes an instruction. */
export function failCalls({ number, arguments: values = {}, errno }: MissingCall): void {
  const wanted = [
    [NUMBER_AT, number],
    ...Object.entries(values).map(([index, value]) => [ARGUMENTS_AT + 8 * Number(index), value]),
  ] as [number, number][];
  const filter = wanted.flatMap(([at, value], index) => [
    [LOAD, 0, 0, at],
    // Another value: past the tests that follow, and the failure.
    [JUMP_EQUAL, 0, 2 * (wanted.length - 1 - index) + 1, value],
  ]);
  filter.push([RETURN, 0, 0, FAIL | errno], [RETURN, 0, 0, ALLOW]);
  const program = Buffer.alloc(256);
  for (const [index, [code, yes, no, value]] of filter.entries()) {
    program.writeUInt16LE(code!, 8 * index);
    program.writeUInt8(yes!, 8 * index + 2);
    program.writeUInt8(no!, 8 * index + 3);
    program.writeUInt32LE(value! >>> 0, 8 * index + 4);
  }
  const descriptor = Buffer.alloc(16);
  descriptor.writeUInt16LE(filter.length, 0);
  descriptor.writeBigUInt64LE(addressOf(program), 8);
  const own = SECCOMP[process.arch]!;
  callNumber(own, "seccomp", SET_MODE_FILTER, FLAG_TSYNC, addressOf(descriptor));
}

/** From now on the programs are read as `bytes`, which may change afterwards. */
function replaceObject(bytes: Buffer): void {
  const { readFileSync } = fs;
  const replaced = (path: fs.PathOrFileDescriptor, ...rest: never[]) =>
    String(path).endsWith("ambit.bpf.o") ? bytes : readFileSync(path, ...rest);
  fs.readFileSync = replaced as typeof readFileSync;
  syncBuiltinESMExports();
}

/** "check: what was found", or "open". */
async function ask(options: GateTrial["options"]): Promise<string> {
  try {
    const { node } = await openEbpf({
      ...options,
      nodeName: "trial",
      procFolder: "/proc",
      hostNetns: undefined,
      kubeletCgroup: undefined,
      probes: new NftablesBackend({ hostNetns: undefined, probeUid: undefined }),
    });
    node.pins.removeAll();
    return "open";
  } catch (error) {
    return `${error instanceof GateError ? error.check : "uncaught"}: ${errorMessage(error)}`;
  }
}

if (import.meta.main) {
  const { options, missing, objects = [] }: GateTrial = JSON.parse(process.argv[2]!) as GateTrial;
  const answers: string[] = [];
  if (objects.length === 0) {
    if (missing !== undefined) failCalls(missing);
    answers.push(await ask(options));
  }
  const bytes = objects.length === 0 ? undefined : fs.readFileSync(objects[0]!);
  if (bytes !== undefined) replaceObject(bytes);
  for (const path of objects) {
    bytes!.set(fs.readFileSync(path));
    answers.push(await ask(options));
  }
  process.stdout.write(`${JSON.stringify(answers)}\n`);
}
