// Reading the manifests a user names: files, folders, or standard input. All mistakes are reported at
// once, each with its file, line and field, and nothing is taken when there is one.

import { globSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { errorCode, errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { formatProblem } from "@ambit/common/resources/source.ts";
import { parseManifest } from "@ambit/common/resources/yaml-file.ts";

const STDIN = "-";

/** The resources of files and folders (searched for YAML and JSON), in order. Throws UserError. */
export function readManifests(paths: readonly string[]): Resource[] {
  const parsed = paths.flatMap(filesOf).map((file) => {
    const text = readText(file);
    return parseManifest(text, file === STDIN ? "standard input" : file);
  });
  const problems = parsed.flatMap((manifest) => manifest.problems);
  if (problems.length > 0) throw new UserError(problems.map(formatProblem).join("\n"));
  return parsed.flatMap(({ resources }) => resources);
}

function filesOf(path: string): string[] {
  if (path === STDIN) return [path];
  try {
    if (!statSync(path).isDirectory()) return [path];
  } catch (error) {
    throw unreadable(path, error);
  }
  const files = globSync("**/*.{yaml,yml,json}", { cwd: path })
    .filter((file) => !file.split("/").some((part) => part.startsWith(".")))
    .sort()
    .map((file) => join(path, file));
  if (files.length === 0) throw new UserError(`${path} holds no .yaml, .yml or .json file`);
  return files;
}

function readText(file: string): string {
  try {
    return readFileSync(file === STDIN ? 0 : file, "utf8");
  } catch (error) {
    throw unreadable(file, error);
  }
}

function unreadable(path: string, error: unknown): UserError {
  const why = errorCode(error) === "ENOENT" ? "it does not exist" : errorMessage(error);
  return new UserError(`cannot read ${path}: ${why}`);
}
