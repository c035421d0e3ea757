// What all TLS sessions of a certificate share: its key and chain, whom it trusts, and which TLS is spoken.

import {
  alpnSelector,
  bioFree,
  bioOfBytes,
  certificateFree,
  clearErrors,
  contextAddClientCa,
  contextControl,
  contextFree,
  contextNew,
  contextSetAlpnSelect,
  contextSetCiphers12,
  contextSetCiphers13,
  contextSetOptions,
  contextSetText,
  contextSetTickets,
  contextSetVerify,
  contextStore,
  contextUseCertificate,
  contextUseKey,
  keyFree,
  pemReadCertificate,
  pemReadKey,
  type Pointer,
  stableBuffer,
  storeAdd,
  takeError,
  tlsMethod,
} from "../sys/libssl.ts";
import type { WorkloadCertificate } from "./certificate.ts";

/** Which TLS a context speaks. */
export interface TlsProfile {
  readonly minVersion: "TLSv1.2" | "TLSv1.3";
  /** TLS 1.3's suites, separated by colons, the first preferred; likewise the others. */
  readonly ciphers13: string;
  readonly ciphers12: string;
  readonly groups: string;
}

// include/openssl/ssl.h: commands of SSL_CTX_ctrl, and flags.
const SET_MODE = 33;
const SET_SESSION_CACHE_MODE = 44;
const ADD_CHAIN_CERTIFICATE = 89;
const SET_GROUPS = 92;
const SET_MIN_VERSION = 123;
const VERSIONS = { "TLSv1.2": 0x0303, "TLSv1.3": 0x0304 } as const;
const OP_NO_TICKET = 1 << 14;
const OP_NO_RENEGOTIATION = 1 << 30;
const MODE_RELEASE_BUFFERS = 0x10;
const SESSION_CACHE_OFF = 0;
const VERIFY_PEER = 0x01;
const VERIFY_FAIL_IF_NO_PEER_CERTIFICATE = 0x02;

/** ALPN's list with h2 alone (RFC 7301 §3.1), as both sides say it. */
export const ALPN_H2 = stableBuffer(3);
ALPN_H2.set([2, 0x68, 0x32]);

let selector: bigint | undefined;

/** Contexts nobody holds any more are OpenSSL's to free; sessions hold theirs on their own. */
const forgotten = new FinalizationRegistry<Pointer>((pointer) => contextFree(pointer));

export class TlsContext {
  /** For sslNew. */
  readonly pointer: Pointer;

  /**
   * Without tickets or a session cache: a resumed session would skip the look at the peer's certificate,
   * so every handshake is a full one, also with peers that try (Envoy does). Both sides must present a
   * certificate. Throws an Error when OpenSSL does not take the certificate, the key or the profile.
   */
  constructor(certificate: WorkloadCertificate, profile: TlsProfile) {
    this.pointer = contextNew(tlsMethod()) as Pointer;
    forgotten.register(this, this.pointer);
    clearErrors();
    this.#speak(profile);
    this.#present(certificate);
    for (const pem of certificate.rootsPem) this.#trust(pem);
    contextSetVerify(this.pointer, VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERTIFICATE, 0);
  }

  #speak({ minVersion, ciphers13, ciphers12, groups }: TlsProfile): void {
    const { pointer } = this;
    check(contextControl(pointer, SET_MIN_VERSION, VERSIONS[minVersion], 0), "version");
    check(contextSetCiphers13(pointer, ciphers13), "ciphers of TLS 1.3");
    check(contextSetCiphers12(pointer, ciphers12), "ciphers of TLS 1.2");
    check(contextSetText(pointer, SET_GROUPS, 0, groups), "groups");
    contextSetOptions(pointer, OP_NO_TICKET | OP_NO_RENEGOTIATION);
    check(contextSetTickets(pointer, 0), "tickets");
    contextControl(pointer, SET_SESSION_CACHE_MODE, SESSION_CACHE_OFF, 0);
    // Idle connections hold no buffers of 16 KiB.
    contextControl(pointer, SET_MODE, MODE_RELEASE_BUFFERS, 0);
    selector ??= alpnSelector(ALPN_H2);
    contextSetAlpnSelect(pointer, selector, 0);
  }

  #present({ leafPem, intermediatesPem, keyPem }: WorkloadCertificate): void {
    const { pointer } = this;
    withCertificate(leafPem, (x509) => check(contextUseCertificate(pointer, x509), "certificate"));
    for (const pem of intermediatesPem) {
      const add = (x509: Pointer) => contextControl(pointer, ADD_CHAIN_CERTIFICATE, 1, x509);
      withCertificate(pem, (x509) => check(add(x509), "intermediate certificate"));
    }
    const key = fromPem(keyPem, pemReadKey, "private key");
    const used = contextUseKey(pointer, key);
    keyFree(key);
    check(used, "private key");
  }

  #trust(pem: string): void {
    withCertificate(pem, (x509) => {
      check(storeAdd(contextStore(this.pointer), x509), "root certificate");
      check(contextAddClientCa(this.pointer, x509), "root certificate");
    });
  }
}

function withCertificate(pem: string, use: (x509: Pointer) => void): void {
  const x509 = fromPem(pem, pemReadCertificate, "certificate");
  try {
    use(x509);
  } finally {
    certificateFree(x509);
  }
}

function fromPem(
  pem: string,
  read: (bio: Pointer, into: Pointer, password: Pointer, arg: Pointer) => Pointer,
  what: string,
): Pointer {
  const bytes = Buffer.from(pem);
  const bio = bioOfBytes(bytes, bytes.length) as Pointer;
  const found = read(bio, 0, 0, 0);
  bioFree(bio);
  if (found === 0) throw new Error(`OpenSSL does not take the ${what}: ${takeError()}`);
  return found;
}

function check(result: number | bigint, what: string): void {
  if (Number(result) !== 1) throw new Error(`OpenSSL does not take the ${what}: ${takeError()}`);
}
