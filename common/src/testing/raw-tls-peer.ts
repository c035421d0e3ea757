// A TLS client below TlsSession, for what only OpenSSL's own functions can do: asking for new keys.

import {
  bioMemory,
  bioNew,
  bioRead,
  bioWrite,
  type Pointer,
  sslFree,
  sslHandshake,
  sslKeyUpdate,
  sslNew,
  sslRead,
  sslSetBio,
  sslSetConnectState,
  sslWrite,
  stableAddress,
  stableBuffer,
} from "../sys/libssl.ts";
import type { TlsContext } from "../tls/tls-context.ts";

const KEY_UPDATE_REQUESTED = 1;
const BUFFER_BYTES = 64 * 1024;

export class RawTlsPeer implements Disposable {
  readonly #ssl: Pointer;
  readonly #in = bioNew(bioMemory()) as Pointer;
  readonly #out = bioNew(bioMemory()) as Pointer;
  readonly #buffer = stableBuffer(BUFFER_BYTES);

  constructor(context: TlsContext) {
    this.#ssl = sslNew(context.pointer) as Pointer;
    sslSetBio(this.#ssl, this.#in, this.#out);
    sslSetConnectState(this.#ssl);
  }

  /** A step of the handshake; returns what is to be sent. */
  handshake(bytes: Buffer): Buffer {
    this.#feed(bytes);
    sslHandshake(this.#ssl);
    return this.#sent();
  }

  /** Bytes as ciphertext, behind a request for new keys when `rekey` says so. */
  encrypt(bytes: Buffer, rekey = false): Buffer {
    if (rekey) sslKeyUpdate(this.#ssl, KEY_UPDATE_REQUESTED);
    sslWrite(this.#ssl, bytes, bytes.length);
    return this.#sent();
  }

  /** What a record says; undefined when it says nothing, or is no record of ours. */
  decrypt(bytes: Buffer): Buffer | undefined {
    this.#feed(bytes);
    const count = sslRead(this.#ssl, stableAddress(this.#buffer), BUFFER_BYTES) as number;
    return count > 0 ? Buffer.from(this.#buffer.subarray(0, count)) : undefined;
  }

  [Symbol.dispose](): void {
    sslFree(this.#ssl);
  }

  #feed(bytes: Buffer): void {
    if (bytes.length > 0) bioWrite(this.#in, bytes, bytes.length);
  }

  #sent(): Buffer {
    const count = bioRead(this.#out, stableAddress(this.#buffer), BUFFER_BYTES) as number;
    return Buffer.from(this.#buffer.subarray(0, Math.max(count, 0)));
  }
}
