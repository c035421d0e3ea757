// OpenSSL's own functions, as Node's binary exports them for addons: TLS on memory, without a stream object
// around each connection. Pointers are numbers that only OpenSSL looks into.

import koffi from "koffi";

/** A pointer into OpenSSL. 0: none. */
export type Pointer = number;

const library = koffi.load(null);

koffi.proto(
  "int AlpnSelect(uintptr_t ssl, uintptr_t out, uintptr_t outLength, uintptr_t offered, uint32_t length, uintptr_t arg)",
);

// Sessions: what runs for each handshake and each chunk of bytes.

export const sslNew = library.func("uintptr_t SSL_new(uintptr_t context)");
export const sslFree = library.func("void SSL_free(uintptr_t ssl)");
export const sslSetBio = library.func(
  "void SSL_set_bio(uintptr_t ssl, uintptr_t in, uintptr_t out)",
);
export const sslSetAcceptState = library.func("void SSL_set_accept_state(uintptr_t ssl)");
export const sslSetConnectState = library.func("void SSL_set_connect_state(uintptr_t ssl)");
export const sslSetAlpn = library.func(
  "int SSL_set_alpn_protos(uintptr_t ssl, const uint8_t *protocols, uint32_t length)",
);
export const sslHandshake = library.func("int SSL_do_handshake(uintptr_t ssl)");
export const sslRead = library.func("int SSL_read(uintptr_t ssl, uintptr_t bytes, int length)");
export const sslWrite = library.func(
  "int SSL_write(uintptr_t ssl, const uint8_t *bytes, int length)",
);
export const sslWant = library.func("int SSL_want(uintptr_t ssl)");
export const sslHasPending = library.func("int SSL_has_pending(uintptr_t ssl)");
export const sslShutdown = library.func("int SSL_shutdown(uintptr_t ssl)");
export const sslGetShutdown = library.func("int SSL_get_shutdown(uintptr_t ssl)");
export const sslVerifyResult = library.func("long SSL_get_verify_result(uintptr_t ssl)");
export const sslPeerCertificate = library.func(
  "uintptr_t SSL_get1_peer_certificate(uintptr_t ssl)",
);
export const sslPeerChain = library.func("uintptr_t SSL_get_peer_cert_chain(uintptr_t ssl)");
export const sslVersion = library.func("const char *SSL_get_version(uintptr_t ssl)");
export const sslGroup = library.func("const char *SSL_get0_group_name(uintptr_t ssl)");
/** RFC 8446 §4.6.3; `type` says whether the peer's keys are to change, too. */
export const sslKeyUpdate = library.func("int SSL_key_update(uintptr_t ssl, int type)");
export const sslAlpn = library.func(
  "void SSL_get0_alpn_selected(uintptr_t ssl, _Out_ uintptr_t *protocol, _Out_ uint32_t *length)",
);

// Memory that ciphertext passes through.

export const bioNew = library.func("uintptr_t BIO_new(uintptr_t method)");
export const bioMemory = library.func("uintptr_t BIO_s_mem()");
export const bioOfBytes = library.func(
  "uintptr_t BIO_new_mem_buf(const uint8_t *bytes, int length)",
);
export const bioHold = library.func("int BIO_up_ref(uintptr_t bio)");
export const bioFree = library.func("int BIO_free(uintptr_t bio)");
export const bioRead = library.func("int BIO_read(uintptr_t bio, uintptr_t bytes, int length)");
export const bioWrite = library.func(
  "int BIO_write(uintptr_t bio, const uint8_t *bytes, int length)",
);
export const bioControl = library.func(
  "long BIO_ctrl(uintptr_t bio, int command, long number, uintptr_t pointer)",
);
export const BIO_CTRL_RESET = 1;

// Contexts.

export const tlsMethod = library.func("uintptr_t TLS_method()");
export const contextNew = library.func("uintptr_t SSL_CTX_new(uintptr_t method)");
export const contextFree = library.func("void SSL_CTX_free(uintptr_t context)");
export const contextControl = library.func(
  "long SSL_CTX_ctrl(uintptr_t context, int command, long number, uintptr_t pointer)",
);
/** The same function for commands that take text. */
export const contextSetText = library.func(
  "long SSL_CTX_ctrl(uintptr_t context, int command, long number, const char *text)",
);
export const contextSetOptions = library.func(
  "uint64_t SSL_CTX_set_options(uintptr_t context, uint64_t options)",
);
export const contextSetTickets = library.func(
  "int SSL_CTX_set_num_tickets(uintptr_t context, size_t count)",
);
export const contextSetCiphers13 = library.func(
  "int SSL_CTX_set_ciphersuites(uintptr_t context, const char *names)",
);
export const contextSetCiphers12 = library.func(
  "int SSL_CTX_set_cipher_list(uintptr_t context, const char *names)",
);
export const contextUseCertificate = library.func(
  "int SSL_CTX_use_certificate(uintptr_t context, uintptr_t x509)",
);
export const contextUseKey = library.func(
  "int SSL_CTX_use_PrivateKey(uintptr_t context, uintptr_t key)",
);
export const contextStore = library.func("uintptr_t SSL_CTX_get_cert_store(uintptr_t context)");
export const contextAddClientCa = library.func(
  "int SSL_CTX_add_client_CA(uintptr_t context, uintptr_t x509)",
);
export const contextSetVerify = library.func(
  "void SSL_CTX_set_verify(uintptr_t context, int mode, uintptr_t callback)",
);
export const contextSetAlpnSelect = library.func(
  "void SSL_CTX_set_alpn_select_cb(uintptr_t context, AlpnSelect *select, uintptr_t arg)",
);
const selectProtocol = library.func(
  "int SSL_select_next_proto(uintptr_t out, uintptr_t outLength, uintptr_t ours, uint32_t ourLength, uintptr_t offered, uint32_t length)",
);

// Certificates.

export const storeAdd = library.func("int X509_STORE_add_cert(uintptr_t store, uintptr_t x509)");
export const pemReadCertificate = library.func(
  "uintptr_t PEM_read_bio_X509(uintptr_t bio, uintptr_t into, uintptr_t password, uintptr_t arg)",
);
export const pemReadKey = library.func(
  "uintptr_t PEM_read_bio_PrivateKey(uintptr_t bio, uintptr_t into, uintptr_t password, uintptr_t arg)",
);
export const derWriteCertificate = library.func("int i2d_X509_bio(uintptr_t bio, uintptr_t x509)");
export const certificateFree = library.func("void X509_free(uintptr_t x509)");
export const keyFree = library.func("void EVP_PKEY_free(uintptr_t key)");
export const stackCount = library.func("int OPENSSL_sk_num(uintptr_t stack)");
export const stackAt = library.func("uintptr_t OPENSSL_sk_value(uintptr_t stack, int index)");

// Errors: a queue per thread, which Node's own use of OpenSSL shares.

const peekLastError = library.func("unsigned long ERR_peek_last_error()");
const reasonOf = library.func("const char *ERR_reason_error_string(unsigned long code)");
const verifyReasonOf = library.func("const char *X509_verify_cert_error_string(long code)");
const clearQueue = library.func("void ERR_clear_error()");

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
