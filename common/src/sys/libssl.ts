// OpenSSL's own functions, as Node's binary exports them for addons: TLS on memory, without a stream object
// around each connection. Pointers are numbers that only OpenSSL looks into.

import koffi from "koffi";
import { errorMessage } from "../process/errors.ts";

/** A pointer into OpenSSL. 0: none. */
export type Pointer = number;

const library = koffi.load(null);

/** Throws an Error that says what to use. */
function bind(declaration: string): ReturnType<typeof library.func> {
  try {
    return library.func(declaration);
  } catch (error) {
    const why = "this Node does not export OpenSSL's functions: use an official build of Node 26";
    throw new Error(`${why} (${errorMessage(error)})`, { cause: error });
  }
}

koffi.proto(
  "int AlpnSelect(uintptr_t ssl, uintptr_t out, uintptr_t outLength, uintptr_t offered, uint32_t length, uintptr_t arg)",
);

// Sessions: what runs for each handshake and each chunk of bytes.

export const sslNew = bind("uintptr_t SSL_new(uintptr_t context)");
export const sslFree = bind("void SSL_free(uintptr_t ssl)");
export const sslSetBio = bind("void SSL_set_bio(uintptr_t ssl, uintptr_t in, uintptr_t out)");
export const sslSetAcceptState = bind("void SSL_set_accept_state(uintptr_t ssl)");
export const sslSetConnectState = bind("void SSL_set_connect_state(uintptr_t ssl)");
export const sslSetAlpn = bind(
  "int SSL_set_alpn_protos(uintptr_t ssl, const uint8_t *protocols, uint32_t length)",
);
export const sslHandshake = bind("int SSL_do_handshake(uintptr_t ssl)");
export const sslRead = bind("int SSL_read(uintptr_t ssl, uintptr_t bytes, int length)");
export const sslWrite = bind("int SSL_write(uintptr_t ssl, const uint8_t *bytes, int length)");
export const sslWant = bind("int SSL_want(uintptr_t ssl)");
export const sslHasPending = bind("int SSL_has_pending(uintptr_t ssl)");
export const sslShutdown = bind("int SSL_shutdown(uintptr_t ssl)");
export const sslGetShutdown = bind("int SSL_get_shutdown(uintptr_t ssl)");
export const sslVerifyResult = bind("long SSL_get_verify_result(uintptr_t ssl)");
export const sslPeerCertificate = bind("uintptr_t SSL_get1_peer_certificate(uintptr_t ssl)");
export const sslPeerChain = bind("uintptr_t SSL_get_peer_cert_chain(uintptr_t ssl)");
export const sslVersion = bind("const char *SSL_get_version(uintptr_t ssl)");
export const sslGroup = bind("const char *SSL_get0_group_name(uintptr_t ssl)");
/** RFC 8446 §4.6.3; `type` says whether the peer's keys are to change, too. */
export const sslKeyUpdate = bind("int SSL_key_update(uintptr_t ssl, int type)");
export const sslAlpn = bind(
  "void SSL_get0_alpn_selected(uintptr_t ssl, _Out_ uintptr_t *protocol, _Out_ uint32_t *length)",
);

// Memory that ciphertext passes through.

export const bioNew = bind("uintptr_t BIO_new(uintptr_t method)");
export const bioMemory = bind("uintptr_t BIO_s_mem()");
export const bioOfBytes = bind("uintptr_t BIO_new_mem_buf(const uint8_t *bytes, int length)");
export const bioHold = bind("int BIO_up_ref(uintptr_t bio)");
export const bioFree = bind("int BIO_free(uintptr_t bio)");
export const bioRead = bind("int BIO_read(uintptr_t bio, uintptr_t bytes, int length)");
export const bioWrite = bind("int BIO_write(uintptr_t bio, const uint8_t *bytes, int length)");
export const bioControl = bind(
  "long BIO_ctrl(uintptr_t bio, int command, long number, uintptr_t pointer)",
);
/** Reads the `BUF_MEM` at `pointer` from now on; `number`: whether it is the BIO's to free. */
export const BIO_C_SET_BUF_MEM = 114;
/** Writes the pointers of its two ends to `first` and `second`. */
export const bioNewPair = bind(
  "int BIO_new_bio_pair(uintptr_t first, size_t firstBytes, uintptr_t second, size_t secondBytes)",
);
/** Reads in place: writes to `bytes` where they are. */
export const bioNextRead = bind("int BIO_nread(uintptr_t bio, uintptr_t bytes, int length)");

// Contexts.

export const tlsMethod = bind("uintptr_t TLS_method()");
export const contextNew = bind("uintptr_t SSL_CTX_new(uintptr_t method)");
export const contextFree = bind("void SSL_CTX_free(uintptr_t context)");
export const contextControl = bind(
  "long SSL_CTX_ctrl(uintptr_t context, int command, long number, uintptr_t pointer)",
);
/** The same function for commands that take text. */
export const contextSetText = bind(
  "long SSL_CTX_ctrl(uintptr_t context, int command, long number, const char *text)",
);
export const contextSetOptions = bind(
  "uint64_t SSL_CTX_set_options(uintptr_t context, uint64_t options)",
);
export const contextSetTickets = bind(
  "int SSL_CTX_set_num_tickets(uintptr_t context, size_t count)",
);
export const contextSetCiphers13 = bind(
  "int SSL_CTX_set_ciphersuites(uintptr_t context, const char *names)",
);
export const contextSetCiphers12 = bind(
  "int SSL_CTX_set_cipher_list(uintptr_t context, const char *names)",
);
export const contextUseCertificate = bind(
  "int SSL_CTX_use_certificate(uintptr_t context, uintptr_t x509)",
);
export const contextUseKey = bind("int SSL_CTX_use_PrivateKey(uintptr_t context, uintptr_t key)");
export const contextStore = bind("uintptr_t SSL_CTX_get_cert_store(uintptr_t context)");
export const contextAddClientCa = bind(
  "int SSL_CTX_add_client_CA(uintptr_t context, uintptr_t x509)",
);
export const contextSetVerify = bind(
  "void SSL_CTX_set_verify(uintptr_t context, int mode, uintptr_t callback)",
);
export const contextSetAlpnSelect = bind(
  "void SSL_CTX_set_alpn_select_cb(uintptr_t context, AlpnSelect *select, uintptr_t arg)",
);
const selectProtocol = bind(
  "int SSL_select_next_proto(uintptr_t out, uintptr_t outLength, uintptr_t ours, uint32_t ourLength, uintptr_t offered, uint32_t length)",
);

// Certificates.

export const storeAdd = bind("int X509_STORE_add_cert(uintptr_t store, uintptr_t x509)");
export const pemReadCertificate = bind(
  "uintptr_t PEM_read_bio_X509(uintptr_t bio, uintptr_t into, uintptr_t password, uintptr_t arg)",
);
export const pemReadKey = bind(
  "uintptr_t PEM_read_bio_PrivateKey(uintptr_t bio, uintptr_t into, uintptr_t password, uintptr_t arg)",
);
export const derWriteCertificate = bind("int i2d_X509_bio(uintptr_t bio, uintptr_t x509)");
export const certificateFree = bind("void X509_free(uintptr_t x509)");
export const keyFree = bind("void EVP_PKEY_free(uintptr_t key)");
export const stackCount = bind("int OPENSSL_sk_num(uintptr_t stack)");
export const stackAt = bind("uintptr_t OPENSSL_sk_value(uintptr_t stack, int index)");

// Errors: a queue per thread, which Node's own use of OpenSSL shares.

const peekLastError = bind("unsigned long ERR_peek_last_error()");
const reasonOf = bind("const char *ERR_reason_error_string(unsigned long code)");
const verifyReasonOf = bind("const char *X509_verify_cert_error_string(long code)");
const clearQueue = bind("void ERR_clear_error()");

/** The queue says nothing; what a call leaves in it from here on is its own. */
export function errorFree(): boolean {
  return peekLastError() === 0;
}

/** Empties the queue. Looking is cheaper than emptying, and mostly there is nothing. */
export function clearErrors(): void {
  if (!errorFree()) clearQueue();
}

/** What OpenSSL says went wrong last on this thread; empties the queue. */
export function takeError(): string {
  const code = peekLastError() as number | bigint;
  const reason = reasonOf(code) as string | null;
  clearQueue();
  return reason ?? "unknown error";
}

/** What a verification's result means. */
export function verifyReason(result: number): string {
  return verifyReasonOf(result) as string;
}

const SELECTED = 1;
const TLSEXT_ERR_OK = 0;
const TLSEXT_ERR_ALERT_FATAL = 2;

/**
 * A callback for contextSetAlpnSelect that takes one protocol (RFC 7301) and refuses clients that offer only
 * others. It and `protocol`, in the wire's form and outside of V8's heap, stay for the life of the thread.
 */
export function alpnSelector(protocol: Buffer): bigint {
  const ours = stableAddress(protocol);
  const select = (
    _ssl: Pointer,
    out: Pointer,
    outLength: Pointer,
    offered: Pointer,
    length: number,
  ): number => {
    const found = selectProtocol(out, outLength, ours, protocol.length, offered, length);
    return found === SELECTED ? TLSEXT_ERR_OK : TLSEXT_ERR_ALERT_FATAL;
  };
  return koffi.register(select, koffi.pointer("AlpnSelect"));
}

/** Memory that never moves: small Buffers may be in V8's heap, which does move what is in it. */
export function stableBuffer(length: number): Buffer {
  return Buffer.from(new ArrayBuffer(length));
}

/** The address of a stableBuffer. It is good for as long as somebody holds the buffer. */
export function stableAddress(buffer: Buffer): Pointer {
  return Number(koffi.address(buffer));
}

/** Memory of OpenSSL's; it must not be freed as long as somebody holds the Buffer. */
export function memoryAt(address: bigint, bytes: number): Buffer {
  return Buffer.from(koffi.view(address, bytes));
}
