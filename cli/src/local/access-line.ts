// ztunnel's access lines as the narration reads them: the plain format, `key=value` with quoted strings.
// Pure.

export interface AccessLine {
  readonly direction: string;
  readonly path: string;
  readonly source: string;
  readonly sourceIdentity: string | undefined;
  readonly destination: string;
  readonly destinationIdentity: string | undefined;
  readonly error: string | undefined;
  readonly reason: string | undefined;
}

const FIELD = /([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S+)/g;

/** The line of a finished or refused connection; undefined for every other log line. */
export function parseAccessLine(line: string): AccessLine | undefined {
  const [, , scope, message, ...rest] = line.split("\t");
  if (scope !== "access") return undefined;
  if (message !== "connection complete" && message !== "connection failed") return undefined;
  const fields = new Map(
    [...rest.join("\t").matchAll(FIELD)].map(([, key, value]) => [key!, unquote(value!)]),
  );
  const named = (side: "src" | "dst") =>
    fields.get(`${side}.workload`) || fields.get(`${side}.addr`) || "unknown";
  return {
    direction: fields.get("direction") ?? "",
    path: fields.get("path") ?? "",
    source: named("src"),
    sourceIdentity: fields.get("src.identity"),
    destination: fields.get("dst.service") ?? named("dst"),
    destinationIdentity: fields.get("dst.identity"),
    error: fields.get("error"),
    reason: fields.get("reason"),
  };
}

function unquote(value: string): string {
  if (!value.startsWith('"')) return value;
  try {
    return String(JSON.parse(value));
  } catch {
    return value.replace(/^"|"$/g, "");
  }
}
