// `npm run generate`: protobuf code from api/proto, CRDs and JSON Schemas from the resource schemas.
// With --check it generates into a scratch folder and fails when the committed files differ.

import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";

const API = resolve("api");
const OUTPUTS = ["gen", "crds", "schemas"];

/** Runs every generator inside `apiFolder`, an api package. Throws when one fails. */
function generate(apiFolder: string): void {
  const buf = resolve("node_modules/.bin/buf");
  run(buf, ["generate"], apiFolder);
  const generator = resolve("api/src/generate-crds.ts");
  run(process.execPath, [generator, apiFolder], API);
}

function run(file: string, args: string[], cwd: string): void {
  const PATH = `${resolve("node_modules/.bin")}:${process.env["PATH"] ?? ""}`;
  const { status, error } = spawnSync(file, args, {
    cwd,
    stdio: "inherit",
    env: { ...process.env, PATH },
  });
  if (status !== 0) throw new Error(`${file} ${args.join(" ")} failed`, { cause: error });
}

/** Relative paths of the files below `folder`. */
function listFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => statSync(join(folder, path)).isFile())
    .sort();
}

/** Files that differ between the committed outputs and freshly generated ones. */
function drift(): string[] {
  const scratch = mkdtempSync(join(tmpdir(), "ambit-generate-"));
  try {
    for (const input of ["proto", "buf.yaml", "buf.gen.yaml"]) {
      cpSync(join(API, input), join(scratch, input), { recursive: true });
    }
    generate(scratch);
    const paths = new Set(
      OUTPUTS.flatMap((output) =>
        [API, scratch].flatMap((root) =>
          listFiles(join(root, output)).map((path) => join(output, path)),
        ),
      ),
    );
    return [...paths].filter((path) => contents(join(API, path)) !== contents(join(scratch, path)));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function contents(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

if (process.argv.includes("--check")) {
  const changed = drift();
  for (const path of changed) {
    console.error(
      `${relative(".", join(API, path))}: differs from what is generated; run: npm run generate`,
    );
  }
  process.exitCode = changed.length === 0 ? 0 : 1;
} else {
  generate(API);
}
