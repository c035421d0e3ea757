// Any bytes where a peer's handshake or records should be: refused with a TlsError, or waited for; and other
// sessions of the thread never notice.

import { assert } from "../process/assert.ts";
import { TestCa } from "../testing/test-ca.ts";
import { DEFAULT_TLS_POLICY } from "./tls-policy.ts";
import { TlsError, TlsSession } from "./tls-session.ts";

export const name = "tls-session";

const context = DEFAULT_TLS_POLICY.contextFor(
  new TestCa().issue({ trustDomain: "td", namespace: "n", serviceAccount: "s" }),
);
/** Agreed on once, and untouched by what is done to others. */
const good = agreed();
const WORDS = Buffer.from("still here");

export function corpus(): Uint8Array[] {
  const client = new TlsSession(context, "client");
  client.handshake();
  const hello = Buffer.from(client.takeCipher());
  client.free();
  const record = Buffer.from(good.client.encrypt(WORDS));
  good.server.decrypt(record);
  return [
    hello,
    record,
    Buffer.from("15030300020228", "hex"),
    Buffer.from("GET / HTTP/1.1\r\n\r\n"),
  ];
}

export function fuzz(data: Uint8Array): void {
  const bytes = Buffer.from(data);
  const middle = Math.floor(bytes.length / 2);
  const pieces = [bytes.subarray(0, middle), bytes.subarray(middle)];
  for (const role of ["client", "server"] as const) {
    const session = new TlsSession(context, role);
    attempt(() => pieces.some((piece) => session.handshake(piece)));
    session.takeCipher();
    session.free();
  }
  const { client, server } = agreed();
  attempt(() => pieces.forEach((piece) => server.decrypt(piece)));
  server.takeCipher();
  client.free();
  server.free();
  const heard = good.server.decrypt(Buffer.from(good.client.encrypt(WORDS)));
  assert(heard.equals(WORDS), "other sessions go on");
}

function attempt(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    assert(error instanceof TlsError, "a refusal is a TlsError");
  }
}

function agreed(): { client: TlsSession; server: TlsSession } {
  const client = new TlsSession(context, "client");
  const server = new TlsSession(context, "server");
  client.handshake();
  server.handshake(Buffer.from(client.takeCipher()));
  client.handshake(Buffer.from(server.takeCipher()));
  const finished = Buffer.from(client.takeCipher());
  client.decrypt();
  assert(server.handshake(finished), "the two agree");
  server.takeCipher();
  server.decrypt();
  return { client, server };
}
