// What arrives on a stream before its application's socket is there. Bounded by the stream's window.

import type { StreamListener } from "../http2/stream.ts";

export class EarlyBytes implements StreamListener {
  readonly onHeaders: StreamListener["onHeaders"];
  readonly slices: Buffer[] = [];
  ended = false;
  abortCode: number | undefined;
  lost: string | undefined;
  readonly #onAbort: (code: number) => void;

  /** `onHeaders` is for a client that waits for the answer. */
  constructor(
    onAbort: (code: number) => void = () => undefined,
    onHeaders: StreamListener["onHeaders"] = () => undefined,
  ) {
    this.#onAbort = onAbort;
    this.onHeaders = onHeaders;
  }

  onData(slice: Buffer): void {
    this.slices.push(Buffer.from(slice));
  }

  onEnd(): void {
    this.ended = true;
  }

  onAbort(code: number, lost?: string): void {
    this.abortCode = code;
    this.lost = lost;
    this.#onAbort(code);
  }

  onWritable(): void {}
}
