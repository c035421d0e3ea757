// PEM blocks (RFC 7468): writing one, and cutting a text of several apart.

const LINE_CHARACTERS = 64;

export function toPem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der).toString("base64");
  const lines: string[] = [];
  for (let at = 0; at < base64.length; at += LINE_CHARACTERS)
    lines.push(base64.slice(at, at + LINE_CHARACTERS));
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

/** Every block with this label, each as a PEM text of its own. Other text is ignored. */
export function splitPem(text: string, label: string): string[] {
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const blocks: string[] = [];
  for (let at = text.indexOf(begin); at >= 0; at = text.indexOf(begin, at)) {
    const stop = text.indexOf(end, at);
    if (stop < 0) break;
    blocks.push(`${text.slice(at, stop + end.length)}\n`);
    at = stop + end.length;
  }
  return blocks;
}

/** The bytes of the first block with this label; undefined when there is none. */
export function pemToDer(text: string, label: string): Buffer | undefined {
  const [block] = splitPem(text, label);
  if (block === undefined) return undefined;
  const body = block.split("\n").filter((line) => !line.startsWith("-----"));
  return Buffer.from(body.join(""), "base64");
}
