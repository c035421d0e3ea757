// Writes the TypeScript view of the object: structures, enumerations, maps and constants, so that user
// space and the programs cannot disagree about a byte.

import { type Btf, type BtfType, Kind } from "./btf.ts";

/** Structures that user space reads or writes. */
const STRUCTS = [
  "address",
  "endpoint",
  "slot",
  "occupant",
  "pod_address",
  "pass_key",
  "pass",
  "verdict_key",
  "backend",
  "verdict",
  "flow_key",
  "flow",
  "ended_flow",
  "settings",
];
const ENUMS = [
  ["role", "ROLE_"],
  ["slot_flag", "SLOT_"],
  ["flow_flag", "FLOW_"],
  ["counter", "COUNT_"],
] as const;

/** The text of bpf-layout.gen.ts; `source` is the C headers with the constants. */
export function renderLayout(btf: Btf, source: string): string {
  return [
    "// Generated from bpf/ambit.bpf.o by bpf/src/build.ts: do not edit. What the programs and user space share.",
    "",
    "/** Sizes and offsets in bytes. */",
    `export const STRUCTS = ${renderObject(structs(btf))} as const;`,
    "",
    "/** Maps as the object declares them. */",
    `export const MAPS = ${renderObject(maps(btf))} as const;`,
    "",
    ...ENUMS.map(([name, prefix]) => renderEnum(btf, name, prefix)),
    "/** Numbers of the C sources. */",
    `export const CONSTANTS = ${renderObject(constants(source))} as const;`,
    "",
  ].join("\n");
}

function structs(btf: Btf): Record<string, unknown> {
  return Object.fromEntries(
    STRUCTS.map((name) => {
      const type = btf.named(Kind.STRUCT, name);
      if (type === undefined) throw new Error(`the object has no struct ${name}`);
      const fields = type.members.map((member) => [camel(member.name), member.bitOffset / 8]);
      return [camel(name), { bytes: type.size, ...Object.fromEntries(fields) }];
    }),
  );
}

/** Each variable of the .maps section, by its attributes. */
function maps(btf: Btf): Record<string, unknown> {
  const variables = btf.types.filter(({ kind }) => kind === Kind.VAR);
  return Object.fromEntries(
    variables.flatMap((variable) => {
      const type = btf.resolve(variable.size);
      if (!type.members.some(({ name }) => name === "max_entries" || name === "map_flags"))
        return [];
      return [[variable.name, mapAttributes(btf, type)]];
    }),
  );
}

/** A ring buffer has neither keys nor values: their sizes are 0. */
function mapAttributes(btf: Btf, type: BtfType) {
  const pointed = (name: string) => {
    const member = type.members.find((candidate) => candidate.name === name);
    return member && btf.type(member.type).size;
  };
  const size = (name: string) => {
    const target = pointed(name);
    return target === undefined ? 0 : btf.sizeOf(target);
  };
  const number = (name: string) => {
    const target = pointed(name);
    return target === undefined ? 0 : btf.resolve(target).array!.length;
  };
  return {
    type: number("type"),
    keyBytes: size("key"),
    valueBytes: size("value"),
    entriesMax: number("max_entries"),
  };
}

function renderEnum(btf: Btf, name: string, prefix: string): string {
  const type = btf.named(Kind.ENUM, name);
  if (type === undefined) throw new Error(`the object has no enum ${name}`);
  const members = type.values
    .filter((entry) => entry.name.startsWith(prefix))
    .map((entry) => [entry.name.slice(prefix.length), entry.value]);
  const body = renderObject(Object.fromEntries(members));
  return `export const ${pascal(name)} = ${body} as const;\n`;
}

function constants(source: string): Record<string, number> {
  const found = source.matchAll(/^#define ([A-Z][A-Z0-9_]+) (0x[0-9a-f]+|\d+)\b/gm);
  return Object.fromEntries([...found].map(([, name, value]) => [name, Number(value)]));
}

function renderObject(value: unknown): string {
  return JSON.stringify(value, undefined, 2).replaceAll(/"(\w+)":/g, "$1:");
}

function camel(name: string): string {
  return name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

function pascal(name: string): string {
  return camel(`_${name}`);
}
