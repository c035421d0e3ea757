// HPACK's static table (RFC 7541 Appendix A) and the dynamic table (§2.3.2, §4) with its size bound.

export interface HeaderField {
  readonly name: string;
  readonly value: string;
}

const STATIC_TEXT =
  ":authority=|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|" +
  ":status=200|:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset=|" +
  "accept-encoding=gzip, deflate|accept-language=|accept-ranges=|accept=|access-control-allow-origin=|" +
  "age=|allow=|authorization=|cache-control=|content-disposition=|content-encoding=|content-language=|" +
  "content-length=|content-location=|content-range=|content-type=|cookie=|date=|etag=|expect=|expires=|" +
  "from=|host=|if-match=|if-modified-since=|if-none-match=|if-range=|if-unmodified-since=|" +
  "last-modified=|link=|location=|max-forwards=|proxy-authenticate=|proxy-authorization=|range=|" +
  "referer=|refresh=|retry-after=|server=|set-cookie=|strict-transport-security=|transfer-encoding=|" +
  "user-agent=|vary=|via=|www-authenticate=";

/** Entry i is index i + 1. */
export const STATIC_TABLE: readonly HeaderField[] = STATIC_TEXT.split("|").map((entry) => {
  const equals = entry.indexOf("=");
  return { name: entry.slice(0, equals), value: entry.slice(equals + 1) };
});

/** What an entry costs on top of its text (RFC 7541 §4.1). */
const ENTRY_OVERHEAD_BYTES = 32;

export function fieldBytes({ name, value }: HeaderField): number {
  return name.length + value.length + ENTRY_OVERHEAD_BYTES;
}

/** Newest entry first. Evicts from the end to stay within its size. */
export class DynamicTable {
  readonly #entries: HeaderField[] = [];
  #bytes = 0;
  #bytesMax: number;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Index as on the wire: 1..61 static, then dynamic; undefined outside both. */
  get(index: number): HeaderField | undefined {
    if (index <= STATIC_TABLE.length) return STATIC_TABLE[index - 1];
    return this.#entries[index - STATIC_TABLE.length - 1];
  }

  /** An entry larger than the table empties it and is not kept (RFC 7541 §4.4). */
  add(field: HeaderField): void {
    const bytes = fieldBytes(field);
    this.#evictTo(Math.max(0, this.#bytesMax - bytes));
    if (bytes > this.#bytesMax) return;
    this.#entries.unshift(field);
    this.#bytes += bytes;
  }

  resize(bytesMax: number): void {
    this.#bytesMax = bytesMax;
    this.#evictTo(bytesMax);
  }

  #evictTo(bytes: number): void {
    while (this.#bytes > bytes) this.#bytes -= fieldBytes(this.#entries.pop()!);
  }
}
