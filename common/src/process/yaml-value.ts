// A setting whose value is YAML, or JSON, which is YAML too. Says what is wrong in one line.

import { parseDocument } from "yaml";

/** The value as plain data; undefined for an empty document. Throws an Error with line and reason. */
export function parseYamlValue(text: string): unknown {
  const document = parseDocument(text, {
    prettyErrors: false,
    stringKeys: true,
    logLevel: "error",
  });
  const [error] = document.errors;
  if (error === undefined) return document.toJS() as unknown;
  const line = text.slice(0, error.pos[0]).split("\n").length;
  throw new Error(`line ${line}: ${error.message}`);
}
