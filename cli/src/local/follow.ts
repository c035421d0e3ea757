// Reading a growing log file line by line. Owns the file descriptor and the position in it.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { StringDecoder } from "node:string_decoder";

/** Lines are access lines of a few hundred bytes; what is longer is cut here. */
const LINE_CHARACTERS_MAX = 64 * 1024;
const CHUNK_BYTES = 64 * 1024;

export class LineReader {
  readonly #path: string;
  readonly #buffer = Buffer.alloc(CHUNK_BYTES);
  #fd: number | undefined;
  #position = 0;
  #decoder = new StringDecoder("utf8");
  #rest = "";

  constructor(path: string) {
    this.#path = path;
  }

  /** The whole lines written since the last call; none while the file does not exist. */
  read(): string[] {
    this.#fd ??= open(this.#path);
    if (this.#fd === undefined) return [];
    if (fstatSync(this.#fd).size < this.#position) this.#position = 0;
    const lines: string[] = [];
    for (;;) {
      const count = readSync(this.#fd, this.#buffer, 0, CHUNK_BYTES, this.#position);
      if (count === 0) return lines;
      this.#position += count;
      const parts = (this.#rest + this.#decoder.write(this.#buffer.subarray(0, count))).split("\n");
      this.#rest = (parts.pop() ?? "").slice(0, LINE_CHARACTERS_MAX);
      lines.push(...parts);
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function open(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch {
    return undefined;
  }
}
