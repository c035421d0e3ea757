// One TLS session on memory: ciphertext in, plain bytes out, and the other way. Owns OpenSSL's session;
// the memory that bytes pass through is the thread's, empty again after each call.

import { X509Certificate } from "node:crypto";
import { assert } from "../process/assert.ts";
import { Prefixes } from "../net/prefixes.ts";
import { SCRATCH_BYTES } from "../net/scratch.ts";
import {
  bioFree,
  bioHold,
  bioMemory,
  bioNew,
  bioRead,
  certificateFree,
  clearErrors,
  derWriteCertificate,
  errorFree,
  type Pointer,
  sslAlpn,
  sslFree,
  sslGetShutdown,
  sslGroup,
  sslHandshake,
  sslHasPending,
  sslKeyUpdate,
  sslNew,
  sslPeerCertificate,
  sslPeerChain,
  sslRead,
  sslSetAcceptState,
  sslSetAlpn,
  sslSetBio,
  sslSetConnectState,
  sslShutdown,
  sslVerifyResult,
  sslVersion,
  sslWant,
  sslWrite,
  stableAddress,
  stableBuffer,
  stackAt,
  stackCount,
  takeError,
  verifyReason,
} from "../sys/libssl.ts";
import { ALPN_H2, type TlsContext } from "./tls-context.ts";
import { TlsMemory } from "./tls-memory.ts";

/** Bytes that are encrypted at a time; what OpenSSL's memory holds, once a thread. */
const PIECE_BYTES = 64 * 1024;
/** RFC 8446 §5.1: a record's plain bytes; and what is around them at most. */
const RECORD_BYTES_MAX = 16 * 1024;
const RECORD_OVERHEAD_MAX = 256;
/** RFC 8446 §5.5: AES-GCM is safe for 2^24.5 full records with one key. Bulk reaches that in minutes. */
const RECORDS_PER_KEY = 2 ** 23;
const RECORD_HEADER_BYTES = 5;
/** Of what one read brought, with a record of which the most came before. */
const PLAIN_BYTES = SCRATCH_BYTES + RECORD_BYTES_MAX;
const CIPHER_BYTES = PIECE_BYTES + (PIECE_BYTES / RECORD_BYTES_MAX + 2) * RECORD_OVERHEAD_MAX;
/** A certificate as DER; larger ones are as good as none. */
const CERTIFICATE_BYTES_MAX = 64 * 1024;

// include/openssl/ssl.h
const WANTS_ROOM = 2;
const WANTS_BYTES = 3;
const RECEIVED_SHUTDOWN = 2;
const KEY_UPDATE_NOT_REQUESTED = 0;
const X509_V_OK = 0;

/** Where bytes are decrypted to, and OpenSSL's memory; shared by a thread's sessions. */
interface Workbench {
  readonly plain: Prefixes;
  readonly plainAddress: Pointer;
  readonly memory: TlsMemory;
}

let shared: Workbench | undefined;

function workbench(): Workbench {
  if (shared !== undefined) return shared;
  const plain = stableBuffer(PLAIN_BYTES);
  shared = {
    plain: new Prefixes(plain),
    plainAddress: stableAddress(plain),
    memory: new TlsMemory(CIPHER_BYTES),
  };
  return shared;
}

/** What went wrong with a session, for people; it is of no use any more. */
export class TlsError extends Error {
  override readonly name = "TlsError";
  /** To be sent to the peer, if anything. */
  readonly alert: Buffer;

  constructor(message: string, alert: Buffer) {
    super(message);
    this.alert = alert;
  }
}

export class TlsSession {
  readonly #bench = workbench();
  #ssl: Pointer;
  /** The next byte from the peer begins a record, and none waits inside OpenSSL. */
  #atBoundary = false;
  #ended = false;
  readonly #recordsPerKey: number;
  #recordsLeft: number;
  /** Of a handshake: what OpenSSL's memory had no room for. */
  #overflow: Buffer[] | undefined;

  constructor(context: TlsContext, role: "client" | "server", recordsPerKey = RECORDS_PER_KEY) {
    this.#recordsPerKey = recordsPerKey;
    this.#recordsLeft = recordsPerKey;
    const { incoming, outgoing } = this.#bench.memory;
    this.#ssl = sslNew(context.pointer) as Pointer;
    assert(this.#ssl !== 0, "OpenSSL has memory for a session");
    bioHold(incoming);
    bioHold(outgoing);
    sslSetBio(this.#ssl, incoming, outgoing);
    if (role === "server") sslSetAcceptState(this.#ssl);
    else {
      sslSetConnectState(this.#ssl);
      sslSetAlpn(this.#ssl, ALPN_H2, ALPN_H2.length);
    }
  }

  /**
   * Goes on with the handshake by what the peer sent, at first nothing. Returns whether it is over: then what
   * came behind it must be decrypted at once. `takeCipher` is to be sent in each case. Throws a TlsError.
   */
  handshake(bytes?: Buffer): boolean {
    const { memory } = this.#bench;
    if (bytes !== undefined) memory.feed(bytes);
    for (;;) {
      clearErrors();
      if (sslHandshake(this.#ssl) === 1) return true;
      if (!errorFree()) throw this.#failed();
      const wants = sslWant(this.#ssl) as number;
      if (wants === WANTS_BYTES) return false;
      if (wants !== WANTS_ROOM) throw this.#failed();
      // A long chain of certificates. None of it may be left for others.
      (this.#overflow ??= []).push(Buffer.from(memory.take()));
    }
  }

  /**
   * What the peer's bytes say, without them what came with the end of the handshake; valid until the next
   * call of any session. What it asked for besides is in `takeCipher`, which must be called where `answers`
   * says so. Throws a TlsError when they are not what they should be.
   */
  decrypt(bytes?: Buffer): Buffer {
    const { plain, memory } = this.#bench;
    this.answers = false;
    if (bytes !== undefined) memory.feed(bytes);
    if (bytes !== undefined && this.#atBoundary && isOneRecord(bytes)) {
      const count = this.#read(0);
      if (count > 0) return plain.of(count);
    }
    this.answers = true;
    return plain.of(this.#readAll());
  }

  /** Records other than of plain bytes may have come, which OpenSSL may have answered. */
  answers = false;

  /** The peer has said that it sends nothing more. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Bytes to encrypt at a time. */
  static readonly pieceBytes = PIECE_BYTES;

  /** `bytes`, at most a piece, as ciphertext, valid until the next call of any session. Throws a TlsError. */
  encrypt(bytes: Buffer): Buffer {
    const records = Math.ceil(bytes.length / RECORD_BYTES_MAX);
    if (records > this.#recordsLeft) this.#changeKey();
    this.#recordsLeft -= records;
    if (sslWrite(this.#ssl, bytes, bytes.length) !== bytes.length) throw this.#failed();
    return this.takeCipher();
  }

  /** What OpenSSL wants sent by itself; valid until the next call of any session. */
  takeCipher(): Buffer {
    const bytes = this.#bench.memory.take();
    if (this.#overflow === undefined) return bytes;
    const parts = [...this.#overflow, bytes];
    this.#overflow = undefined;
    return Buffer.concat(parts);
  }

  /** The goodbye to send. */
  shutdown(): Buffer {
    if (sslShutdown(this.#ssl) < 0) clearErrors();
    return this.takeCipher();
  }

  /** "TLSv1.3" */
  get protocol(): string {
    return sslVersion(this.#ssl) as string;
  }

  /** Of the key exchange: "X25519MLKEM768". */
  get group(): string {
    return sslGroup(this.#ssl) as string;
  }

  /** Both sides have agreed on HTTP/2. */
  get speaksH2(): boolean {
    const length = [0];
    sslAlpn(this.#ssl, [0], length);
    return length[0] === ALPN_H2.length - 1;
  }

  /** The peer's own certificate, and what else it presented. */
  peerCertificates(): X509Certificate[] {
    const certificates: X509Certificate[] = [];
    const leaf = sslPeerCertificate(this.#ssl) as Pointer;
    if (leaf === 0) return certificates;
    certificates.push(parsed(leaf, this.#bench));
    certificateFree(leaf);
    const chain = sslPeerChain(this.#ssl) as Pointer;
    const count = chain === 0 ? 0 : (stackCount(chain) as number);
    for (let i = 0; i < count; i++) certificates.push(parsed(stackAt(chain, i), this.#bench));
    return certificates;
  }

  /** Frees it; nothing else may be called any more. */
  free(): void {
    assert(this.#ssl !== 0, "a session is freed once");
    sslFree(this.#ssl);
    this.#ssl = 0;
  }

  /** TLS 1.2 cannot; there the peer is old enough to live with it. */
  #changeKey(): void {
    this.#recordsLeft = this.#recordsPerKey;
    if (this.protocol === "TLSv1.3") sslKeyUpdate(this.#ssl, KEY_UPDATE_NOT_REQUESTED);
  }

  /** Reads all there is to `plain`; returns where it ends. */
  #readAll(): number {
    let end = 0;
    for (let count = this.#read(end); count > 0; count = this.#read(end)) end += count;
    this.#atBoundary = sslHasPending(this.#ssl) === 0;
    return end;
  }

  /** Reads a record at most; 0: there is none. */
  #read(at: number): number {
    const { plainAddress } = this.#bench;
    clearErrors();
    const count = sslRead(this.#ssl, plainAddress + at, PLAIN_BYTES - at) as number;
    if (count > 0) return count;
    if (this.#wantsBytes()) return 0;
    // A fatal alert counts as a shutdown, too, but leaves an error.
    this.#ended = errorFree() && (sslGetShutdown(this.#ssl) & RECEIVED_SHUTDOWN) !== 0;
    if (!this.#ended) throw this.#failed();
    this.#bench.memory.empty();
    return 0;
  }

  /** After a call that did not succeed: because there is nothing to read, and not because of an error. */
  #wantsBytes(): boolean {
    return errorFree() && sslWant(this.#ssl) === WANTS_BYTES;
  }

  #failed(): TlsError {
    this.#bench.memory.empty();
    const verified = sslVerifyResult(this.#ssl) as number;
    const reason = takeError();
    const alert = Buffer.from(this.takeCipher());
    if (verified === X509_V_OK) return new TlsError(reason, alert);
    const why = `the peer's certificate is not trusted: ${verifyReason(verified)}`;
    return new TlsError(why, alert);
  }
}

/** Exactly one whole record: most of what comes. */
function isOneRecord(bytes: Buffer): boolean {
  const { length } = bytes;
  if (length < RECORD_HEADER_BYTES) return false;
  return length === RECORD_HEADER_BYTES + (bytes[3]! << 8) + bytes[4]!;
}

function parsed(x509: Pointer, { plain, plainAddress }: Workbench): X509Certificate {
  const bio = bioNew(bioMemory()) as Pointer;
  derWriteCertificate(bio, x509);
  const length = bioRead(bio, plainAddress, CERTIFICATE_BYTES_MAX) as number;
  bioFree(bio);
  return new X509Certificate(Buffer.from(plain.of(length)));
}
