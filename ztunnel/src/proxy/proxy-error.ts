// Why a connection ended other than well: a closed set of codes, and one table that says what each
// means for the peer (HTTP status of a CONNECT), for metrics (response flag) and for the operator.

export const RESPONSE_FLAGS = [
  "-",
  "DENY",
  "CONNECT",
  "TLS_FAILURE",
  "H2_HANDSHAKE_FAILURE",
  "NETWORK_POLICY",
  "IDENTITY_ERROR",
  "CERT_REVOKED",
] as const;
export type ResponseFlag = (typeof RESPONSE_FLAGS)[number];

interface Meaning {
  readonly flag: ResponseFlag;
  /** Answer to a CONNECT, where one can still be given. */
  readonly httpStatus: 400 | 401 | 503;
}

const MEANING = {
  POLICY_DENIED: { flag: "DENY", httpStatus: 401 },
  POLICY_CHANGED: { flag: "DENY", httpStatus: 401 },
  NOT_CONNECT: { flag: "-", httpStatus: 400 },
  BAD_AUTHORITY: { flag: "-", httpStatus: 400 },
  IP_MISMATCH: { flag: "-", httpStatus: 400 },
  SOCKS_FAILED: { flag: "-", httpStatus: 400 },
  UNKNOWN_SOURCE: { flag: "-", httpStatus: 503 },
  UNKNOWN_DESTINATION: { flag: "-", httpStatus: 503 },
  NO_PORT: { flag: "-", httpStatus: 503 },
  SELF_CALL: { flag: "-", httpStatus: 503 },
  NO_UPSTREAM: { flag: "CONNECT", httpStatus: 503 },
  XDS_UNANSWERED: { flag: "CONNECT", httpStatus: 503 },
  UNKNOWN_WAYPOINT: { flag: "CONNECT", httpStatus: 503 },
  UNKNOWN_GATEWAY: { flag: "CONNECT", httpStatus: 503 },
  POD_BUSY: { flag: "CONNECT", httpStatus: 503 },
  CONNECT_FAILED: { flag: "CONNECT", httpStatus: 503 },
  CONNECT_TIMEOUT: { flag: "CONNECT", httpStatus: 503 },
  TUNNEL_TIMEOUT: { flag: "NETWORK_POLICY", httpStatus: 503 },
  TLS_FAILED: { flag: "TLS_FAILURE", httpStatus: 503 },
  H2_FAILED: { flag: "H2_HANDSHAKE_FAILURE", httpStatus: 503 },
  TUNNEL_REFUSED: { flag: "CONNECT", httpStatus: 503 },
  TUNNEL_UNAUTHORIZED: { flag: "DENY", httpStatus: 401 },
  IDENTITY_UNAVAILABLE: { flag: "IDENTITY_ERROR", httpStatus: 503 },
  CERT_REVOKED: { flag: "CERT_REVOKED", httpStatus: 503 },
  RELAY_FAILED: { flag: "-", httpStatus: 503 },
  DRAINED: { flag: "-", httpStatus: 503 },
  POD_REMOVED: { flag: "-", httpStatus: 503 },
  WORKLOAD_REMOVED: { flag: "-", httpStatus: 503 },
  INTERNAL: { flag: "-", httpStatus: 503 },
} as const satisfies Record<string, Meaning>;

export type ProxyErrorCode = keyof typeof MEANING;
export const PROXY_ERROR_CODES = Object.keys(MEANING) as readonly ProxyErrorCode[];

/** Ends one connection. `message` is what the access line shows as `error`. */
export class ProxyError extends Error {
  override readonly name = "ProxyError";
  readonly code: ProxyErrorCode;

  constructor(code: ProxyErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }

  get flag(): ResponseFlag {
    return MEANING[this.code].flag;
  }

  get httpStatus(): 400 | 401 | 503 {
    return MEANING[this.code].httpStatus;
  }
}

/** The end of a connection whose pod stops being served (ztunnel §7.2 words it so). */
export function drainError(mode: "graceful" | "immediate" | undefined): ProxyError {
  const text = "connection closed due to connection drain";
  return mode === "immediate"
    ? new ProxyError("POD_REMOVED", `${text}: the pod left the mesh`)
    : new ProxyError("DRAINED", text);
}

/** Anything thrown, as a ProxyError; what is not one already is a defect of ours: INTERNAL. */
export function asProxyError(error: unknown): ProxyError {
  if (error instanceof ProxyError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ProxyError("INTERNAL", message, error);
}
