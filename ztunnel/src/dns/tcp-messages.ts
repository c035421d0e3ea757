// DNS over TCP: two length bytes before each message (RFC 1035 §4.2.2).

export function frameTcp(message: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(2 + message.length);
  frame.writeUInt16BE(message.length, 0);
  message.copy(frame, 2);
  return frame;
}

/** Cuts a TCP stream into DNS messages. Holds at most one message, so at most 64 KiB. */
export class TcpMessages {
  readonly #onMessage: (message: Buffer) => void;
  #held: Buffer = Buffer.alloc(0);

  constructor(onMessage: (message: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  push(chunk: Buffer): void {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (this.#held.length >= 2) {
      const end = 2 + this.#held.readUInt16BE(0);
      if (this.#held.length < end) return;
      const message = this.#held.subarray(2, end);
      this.#held = this.#held.subarray(end);
      this.#onMessage(message);
    }
  }
}
