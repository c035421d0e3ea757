// Compressing an HTTP body the way the client asked for (RFC 9110 §12.5.3), off the main thread. Made
// for metric pages: a few hundred kilobytes of repetitive text, many times an hour.

import { promisify } from "node:util";
import { brotliCompress, constants, gzip, zstdCompress } from "node:zlib";

/** Quality 11, the default, takes seconds for a large page. */
const BROTLI_QUALITY = 4;

/** In our order of preference when the client weighs them alike. */
const ENCODERS: Readonly<Record<string, (body: Buffer) => Promise<Buffer>>> = {
  zstd: promisify(zstdCompress),
  gzip: promisify(gzip),
  br: (body) =>
    promisify(brotliCompress)(body, {
      params: { [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY },
    }),
};

/** The encoding to use for an Accept-Encoding header; undefined for none. */
export function chooseEncoding(accept: string): string | undefined {
  const weights = new Map<string, number>();
  for (const part of accept.toLowerCase().split(",")) {
    const [name = "", ...parameters] = part.split(";").map((text) => text.trim());
    const q = parameters.find((text) => text.startsWith("q="));
    weights.set(name, q === undefined ? 1 : Number(q.slice(2)) || 0);
  }
  const weightOf = (name: string) => weights.get(name) ?? weights.get("*") ?? 0;
  let best: string | undefined;
  for (const name of Object.keys(ENCODERS)) {
    if (weightOf(name) > (best === undefined ? 0 : weightOf(best))) best = name;
  }
  return best;
}

export interface Encoded {
  readonly body: string | Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

/** The body in the encoding the client prefers, with the header that says so. */
export async function encodeBody(body: string, acceptEncoding: string): Promise<Encoded> {
  const encoding = chooseEncoding(acceptEncoding);
  if (encoding === undefined) return { body, headers: {} };
  return {
    body: await ENCODERS[encoding]!(Buffer.from(body)),
    headers: { "content-encoding": encoding },
  };
}
