// `ambit version`.

import { readFileSync } from "node:fs";
import { type OutputFormat, printJson } from "../output/table.ts";

export function showVersion(format: OutputFormat): void {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const { version } = JSON.parse(text) as { version: string };
  if (format === "json") printJson({ version, node: process.versions.node });
  else console.log(`ambit ${version} (Node ${process.versions.node})`);
}
