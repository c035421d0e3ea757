// Channels to the control plane: plaintext or TLS with a given root, kept alive, never shared between
// clients, so that a new client is a new connection with the roots as they are now.

import { isIP } from "node:net";
import {
  checkServerIdentity,
  createSecureContext,
  type PeerCertificate,
  type SecureContextOptions,
} from "node:tls";
import {
  Client,
  type ClientOptions,
  connectivityState,
  credentials,
  type ChannelCredentials,
} from "@grpc/grpc-js";
import { systemClock } from "../process/clock.ts";

/** Where to connect to and whom to trust there. */
export interface ChannelTarget {
  /** `https://host:port`, `http://host:port`, or `host:port` (https). */
  readonly address: string;
  /** Roots for https; undefined trusts the system's. */
  readonly rootPem?: string | undefined;
  /** Also accepted as the server's name. */
  readonly alternativeHostname?: string | undefined;
  /** Which TLS to speak; Node's defaults when absent. */
  readonly tls?: SecureContextOptions;
  readonly options?: ClientOptions;
}

/** A large mesh's first response; Istio's limit. */
export const MESSAGE_BYTES_MAX = 200 * 1024 * 1024;
/** Notices a dead peer within keepalive + timeout; Istio's servers allow pings this often. */
export const KEEPALIVE_INTERVAL_MS = 30_000;
export const KEEPALIVE_TIMEOUT_MS = 10_000;
/** TLS allows no address as server name (RFC 6066 section 3), and grpc-js always sends one. */
const SNI_OF_ADDRESSES = "istiod";

/** A client with a connection of its own; nothing is dialed before the first call. Throws on a bad address. */
export function createClient(target: ChannelTarget): Client {
  const { secure, authority, hostname } = parseAddress(target.address);
  return new Client(
    `dns:///${authority}`,
    secure ? secureCredentials(target, hostname) : credentials.createInsecure(),
    {
      "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
      "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
      "grpc.keepalive_time_ms": KEEPALIVE_INTERVAL_MS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.service_config_disable_resolution": 1,
      "grpc.enable_http_proxy": 0,
      "grpc.enable_retries": 0,
      ...(isIP(hostname) !== 0 && { "grpc.ssl_target_name_override": SNI_OF_ADDRESSES }),
      ...target.options,
    },
  );
}

/** Splits `https://host:port`. Throws an Error with a sentence when it is none. */
export function parseAddress(address: string): {
  readonly secure: boolean;
  /** host:port */
  readonly authority: string;
  /** Without the brackets of an IPv6 address. */
  readonly hostname: string;
} {
  const text = address.includes("://") ? address : `https://${address}`;
  const url = URL.parse(text);
  const scheme = url?.protocol;
  if (!url || url.hostname === "" || (scheme !== "https:" && scheme !== "http:")) {
    throw new Error(`"${address}" is not an address like https://host:port`);
  }
  const secure = scheme === "https:";
  return {
    secure,
    authority: `${url.hostname}:${url.port || (secure ? "443" : "80")}`,
    hostname: url.hostname.replace(/^\[|\]$/g, ""),
  };
}

/** Dials; resolves when connected, rejects at the first failure or after `timeoutMs`. */
export async function connect(client: Client, timeoutMs: number): Promise<void> {
  const channel = client.getChannel();
  const deadlineMs = systemClock.nowMs() + timeoutMs;
  for (let state = channel.getConnectivityState(true); ;) {
    if (state === connectivityState.READY) return;
    if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) {
      throw new Error(`cannot connect to ${channel.getTarget()}`);
    }
    const before = state;
    await new Promise<void>((resolve, reject) => {
      channel.watchConnectivityState(before, new Date(deadlineMs), (error) =>
        error === undefined ? resolve() : reject(new Error(`no connection in ${timeoutMs} ms`)),
      );
    });
    state = channel.getConnectivityState(true);
  }
}

/** Checks the certificate for the name or address dialed, whatever name the handshake carried. */
function secureCredentials(target: ChannelTarget, hostname: string): ChannelCredentials {
  const { rootPem, tls, alternativeHostname } = target;
  const context = createSecureContext({ ...tls, ...(rootPem !== undefined && { ca: rootPem }) });
  return credentials.createFromSecureContext(context, {
    checkServerIdentity: (_sent, certificate) =>
      checkNames(certificate, [hostname, alternativeHostname]),
  });
}

/** undefined when the certificate is for one of the names, else what is wrong with the first. */
function checkNames(
  certificate: PeerCertificate,
  names: readonly (string | undefined)[],
): Error | undefined {
  const errors = names
    .filter((name) => name !== undefined)
    .map((name) => checkServerIdentity(name, certificate));
  return errors.includes(undefined) ? undefined : errors[0];
}
