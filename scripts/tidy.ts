// House rules that no linter knows, as a list of problems. Pure reading: nothing is changed.
// The rules and their reasons are in CONTRIBUTING.md.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

export interface Problem {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

const LINES_MAX = 500;
const LINE_LENGTH_MAX = 120;
const BLOB_BYTES_MAX = 512 * 1024;

/** Built-in modules and identifiers with one better place each. */
const BANNED: readonly { pattern: RegExp; instead: string; except: RegExp }[] = [
  {
    pattern: /from "koffi"/,
    instead: "common/src/sys, the only FFI",
    except: /^common\/src\/sys\/|^scripts\/tidy/,
  },
  {
    pattern: /\bDate\.now\(\)/,
    instead: "a Clock argument",
    except: /clock\.ts$|^(cli|samples|scripts)\/|\/bench\/|\.test\.ts$|testing\//,
  },
  {
    pattern: /\bMath\.random\(\)/,
    instead: "a Random argument",
    except: /random\.ts$|^samples\/|\/bench\/|\.test\.ts$/,
  },
  { pattern: /@ts-(ignore|nocheck)/, instead: "a type that holds", except: /^scripts\/tidy/ },
  {
    pattern: /\b(TODO|FIXME|XXX)\b/,
    instead: "the work itself, or an issue",
    except: /^scripts\/tidy/,
  },
  {
    pattern: /\b(it|describe|test)\.(only|skip|todo)\(/,
    instead: "a test that runs",
    except: /^scripts\/tidy/,
  },
  {
    // V8 puts such a function into the old generation at once, with all that it sees.
    pattern: /\.#?\w+ (\?\?)?= (async )?(\([^()]*\)(: [^=]+)? =>|\w+ =>|function\b)/,
    instead: "a function that is named first, then assigned: ztunnel/bench/README.md says why",
    except: /^(?!(common|ztunnel)\/src\/)|\.test\.ts$|testing/,
  },
];

/** Packages each workspace may import besides its own declared dependencies. */
const SHARED = ["@ambit/api", "@ambit/common"];

/** Every problem in the tracked and not-ignored files below `root`. */
export function tidy(root: string): Problem[] {
  const files = listFiles(root);
  const markdown = files.filter((file) => file.endsWith(".md"));
  const sources = files.filter((file) => file.endsWith(".ts") && !file.startsWith("api/gen/"));
  return [
    ...sources.flatMap((file) => checkSource(root, file)),
    ...markdown.flatMap((file) => checkMarkdown(root, file)),
    ...files.flatMap((file) => checkSize(root, file)),
  ];
}

function listFiles(root: string): string[] {
  const output = execFileSync("git", ["ls-files", "-co", "--exclude-standard"], {
    cwd: root,
    encoding: "utf8",
  });
  return output.split("\n").filter((file) => file !== "" && existsSync(join(root, file)));
}

function checkSource(root: string, file: string): Problem[] {
  const lines = readFileSync(join(root, file), "utf8").split("\n");
  return [
    ...checkShape(file, lines),
    ...checkBanned(file, lines),
    ...checkImports(root, file, lines),
  ];
}

export function checkShape(file: string, lines: readonly string[]): Problem[] {
  const problems: Problem[] = [];
  const isTest = /\.(test|fuzz)\.ts$/.test(file);
  const name = basename(file).replace(
    /\.((netns|soak)\.)?(test|fuzz|gen)\.ts$|\.config\.ts$|\.ts$/,
    "",
  );
  if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) {
    problems.push({ file, line: 1, message: `file name "${name}" is not kebab-case` });
  }
  if (!isTest && lines.length > LINES_MAX) {
    problems.push({ file, line: LINES_MAX, message: `over ${LINES_MAX} lines: split by idea` });
  }
  const first = lines.find((line) => !line.startsWith("#!")) ?? "";
  if (!isTest && !file.endsWith(".config.ts") && !/^(\/\/|\/\*)/.test(first)) {
    problems.push({ file, line: 1, message: "no header comment: say what this file is for" });
  }
  lines.forEach((line, index) => {
    if (withoutLiterals(line).length > LINE_LENGTH_MAX && !line.includes("http")) {
      problems.push({ file, line: index + 1, message: `line over ${LINE_LENGTH_MAX} characters` });
    }
  });
  return problems;
}

/** A message stays in one piece, so that a search for it finds it: its length does not count. */
function withoutLiterals(line: string): string {
  return line.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`/g, '""');
}

export function checkBanned(file: string, lines: readonly string[]): Problem[] {
  return BANNED.filter(({ except }) => !except.test(file)).flatMap(({ pattern, instead }) =>
    lines.flatMap((line, index) =>
      pattern.test(line) ? [{ file, line: index + 1, message: `use ${instead}` }] : [],
    ),
  );
}

/** Imports of packages must be declared; a part may import only @ambit/api and @ambit/common. */
function checkImports(root: string, file: string, lines: readonly string[]): Problem[] {
  const own = nearestManifest(root, file);
  const isTest = /\.(test|fuzz)\.ts$|\/(test|bench|testing)\//.test(file);
  const declared = declaredPackages(own, isTest ? join(root, "package.json") : undefined);
  return lines.flatMap((line, index) => {
    const specifier = /^(?:import|export) .*from "([^"]+)"|^import "([^"]+)"/.exec(line);
    const path = specifier?.[1] ?? specifier?.[2];
    if (path === undefined || path.startsWith("node:")) return [];
    const message = checkImport(root, file, path, declared);
    return message === undefined ? [] : [{ file, line: index + 1, message }];
  });
}

function checkImport(
  root: string,
  file: string,
  path: string,
  declared: ReadonlySet<string>,
): string | undefined {
  if (path.startsWith(".")) {
    const target = join(dirname(file), path);
    if (target.split("/")[0] !== file.split("/")[0] && file.includes("/src/")) {
      return `reaches into another part: import from ${SHARED.join(" or ")}`;
    }
    return existsSync(join(root, target)) ? undefined : `no such file: ${path}`;
  }
  const name = path
    .split("/")
    .slice(0, path.startsWith("@") ? 2 : 1)
    .join("/");
  return declared.has(name)
    ? undefined
    : `package ${name} is not declared in this part's package.json`;
}

function nearestManifest(root: string, file: string): string {
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    const manifest = join(root, folder, "package.json");
    if (folder === "." || existsSync(manifest)) return manifest;
  }
}

function declaredPackages(...manifests: (string | undefined)[]): Set<string> {
  const names = new Set<string>();
  for (const path of manifests) {
    if (path === undefined) continue;
    const manifest = JSON.parse(readFileSync(path, "utf8")) as Record<
      string,
      Record<string, string>
    >;
    for (const field of ["dependencies", "devDependencies"]) {
      for (const name of Object.keys(manifest[field] ?? {})) names.add(name);
    }
  }
  return names;
}

function checkMarkdown(root: string, file: string): Problem[] {
  const titles = readFileSync(join(root, file), "utf8")
    .replace(/```[\s\S]*?```/g, "")
    .match(/^# /gm);
  return titles?.length === 1 ? [] : [{ file, line: 1, message: "needs exactly one # title" }];
}

function checkSize(root: string, file: string): Problem[] {
  const bytes = readFileSync(join(root, file)).length;
  return bytes <= BLOB_BYTES_MAX
    ? []
    : [{ file, line: 1, message: `larger than ${BLOB_BYTES_MAX} bytes` }];
}
