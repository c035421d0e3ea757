// The client's connection preface as a server meets it (RFC 9113 §3.4), in whatever pieces it comes.

import { CLIENT_PREFACE, ConnectionError, ErrorCode } from "./protocol.ts";

export class PrefaceCheck {
  #left: number;

  /** A client expects none. */
  constructor(role: "client" | "server") {
    this.#left = role === "server" ? CLIENT_PREFACE.length : 0;
  }

  /** What of a read comes after the preface. Throws ConnectionError when the peer speaks otherwise. */
  strip(chunk: Buffer): Buffer {
    if (this.#left === 0) return chunk;
    const start = CLIENT_PREFACE.length - this.#left;
    const taken = Math.min(this.#left, chunk.length);
    if (CLIENT_PREFACE.compare(chunk, 0, taken, start, start + taken) !== 0) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 client");
    }
    this.#left -= taken;
    return chunk.subarray(taken);
  }
}
