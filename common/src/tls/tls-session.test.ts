import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { readBuffer } from "../net/scratch.ts";
import { TestCa } from "../testing/test-ca.ts";
import { RawTlsPeer } from "../testing/raw-tls-peer.ts";
import { DEFAULT_TLS_POLICY } from "./tls-policy.ts";
import { TlsError, TlsSession } from "./tls-session.ts";

const ca = new TestCa();
const issue = (serviceAccount: string) =>
  ca.issue({ trustDomain: "cluster.local", namespace: "shop", serviceAccount });
const clientContext = DEFAULT_TLS_POLICY.contextFor(issue("client"));
const serverContext = DEFAULT_TLS_POLICY.contextFor(issue("server"));

const open: TlsSession[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.free();
});

function session(role: "client" | "server"): TlsSession {
  const made = new TlsSession(role === "client" ? clientContext : serverContext, role);
  open.push(made);
  return made;
}

/** One step of a handshake: the bytes in pieces, and what is to be sent; a copy, as a socket makes one. */
function step(of: TlsSession, bytes: Buffer, pieceBytes = bytes.length): [boolean, Buffer] {
  const sent: Buffer[] = [];
  let at = 0;
  let over = false;
  do {
    over = of.handshake(bytes.subarray(at, at + pieceBytes));
    sent.push(Buffer.from(of.takeCipher()));
    at += pieceBytes;
  } while (!over && at < bytes.length);
  if (over) of.decrypt(bytes.subarray(at));
  return [over, Buffer.concat(sent)];
}

/** A pair that has agreed. */
function secured(pieceBytes?: number): { client: TlsSession; server: TlsSession } {
  const [client, server] = [session("client"), session("server")];
  const [, hello] = step(client, Buffer.alloc(0));
  const [, flight] = step(server, hello, pieceBytes);
  const [clientOver, finished] = step(client, flight, pieceBytes);
  const [serverOver] = step(server, finished, pieceBytes);
  expect([clientOver, serverOver]).toEqual([true, true]);
  return { client, server };
}

const encrypted = (from: TlsSession, text: string) => Buffer.from(from.encrypt(Buffer.from(text)));
const decrypted = (to: TlsSession, bytes: Buffer) => to.decrypt(bytes).toString();

describe("a TLS session", () => {
  it.each([1, 7, 1000])("makes its handshake of pieces of %i bytes", (pieceBytes) => {
    const { client, server } = secured(pieceBytes);
    expect(client.speaksH2).toBe(true);
    expect(decrypted(server, encrypted(client, "hello"))).toBe("hello");
    expect(decrypted(client, encrypted(server, "world"))).toBe("world");
  });

  it("names both ends by their certificates", () => {
    const { client, server } = secured();
    expect(client.peerCertificates()[0]?.subjectAltName).toContain("/sa/server");
    expect(server.peerCertificates()[0]?.subjectAltName).toContain("/sa/client");
  });

  it("carries bytes of any size, however they are cut on their way", () => {
    const { client, server } = secured();
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 40_000 }),
        (sizes, pieceBytes) => {
          const sent = sizes.map((size, i) => Buffer.alloc(size, i + 1));
          const cipher = Buffer.concat(
            sent.flatMap((bytes) =>
              pieces(bytes, TlsSession.pieceBytes).map((p) => Buffer.from(client.encrypt(p))),
            ),
          );
          const plain = pieces(cipher, pieceBytes).map((p) => Buffer.from(server.decrypt(p)));
          expect(Buffer.concat(plain).equals(Buffer.concat(sent))).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("decrypts what came behind the end of the handshake", () => {
    const [client, server] = [session("client"), session("server")];
    const [, hello] = step(client, Buffer.alloc(0));
    const [, flight] = step(server, hello);
    const [, finished] = step(client, flight);
    expect(server.handshake(Buffer.concat([finished, encrypted(client, "early")]))).toBe(true);
    expect(server.takeCipher().length).toBe(0);
    expect(server.decrypt().toString()).toBe("early");
  });

  it("says that it is over, and hears it", () => {
    const { client, server } = secured();
    const goodbye = Buffer.concat([encrypted(client, "last"), client.shutdown()]);
    expect(decrypted(server, goodbye)).toBe("last");
    expect(server.ended).toBe(true);
    expect(client.ended).toBe(false);
  });

  it("answers a request for new keys, and goes on with them", () => {
    const server = session("server");
    using peer = new RawTlsPeer(clientContext);
    const [, flight] = step(server, peer.handshake(Buffer.alloc(0)));
    expect(step(server, peer.handshake(flight))[0]).toBe(true);
    for (let round = 0; round < 3; round++) {
      expect(decrypted(server, peer.encrypt(Buffer.from("before"), true))).toBe("before");
      expect(server.answers).toBe(true);
      const answer = Buffer.concat([server.takeCipher(), encrypted(server, "after")]);
      expect(peer.decrypt(answer)?.toString()).toBe("after");
    }
  });
});

it("a handshake larger than OpenSSL's memory leaves the next pieces as they are", () => {
  const certificate = issue("server");
  const intermediatesPem = Array<string>(200).fill(ca.rootPem);
  const context = DEFAULT_TLS_POLICY.contextFor({ ...certificate, intermediatesPem });
  const [client, server] = [session("client"), new TlsSession(context, "server")];
  open.push(server);
  const [, flight] = step(server, step(client, Buffer.alloc(0))[1]);
  expect(flight.length).toBeGreaterThan(TlsSession.pieceBytes * 1.1);
  expect(step(server, step(client, flight)[1])[0]).toBe(true);
  for (const bytes of [1, 4096, 4097, TlsSession.pieceBytes].map((size) => Buffer.alloc(size, 7))) {
    expect(Buffer.from(client.decrypt(Buffer.from(server.encrypt(bytes)))).equals(bytes)).toBe(
      true,
    );
  }
});

it.each([1, 3])("a key for %i records is changed before the next", (perKey) => {
  const client = new TlsSession(clientContext, "client", perKey);
  const server = session("server");
  open.push(client);
  const [, hello] = step(client, Buffer.alloc(0));
  const [, flight] = step(server, hello);
  step(server, step(client, flight)[1]);
  const lengths = Array.from({ length: 8 }, () => {
    const cipher = encrypted(client, "x");
    expect(decrypted(server, cipher)).toBe("x");
    return cipher.length;
  });
  const isLonger = lengths.map((length) => length > lengths[0]!);
  expect(isLonger).toEqual(lengths.map((_, i) => i > 0 && i % perKey === 0));
});

describe("sessions of one thread", () => {
  it("do not see each other's bytes, wherever their records are cut", () => {
    const pairs = [secured(), secured(), secured()];
    const ciphers = pairs.map(({ client }, i) => encrypted(client, `for ${i} `.repeat(3000)));
    const plain = pairs.map(() => "");
    for (let at = 0; at < Math.max(...ciphers.map(({ length }) => length)); at += 777) {
      for (const [i, { server }] of pairs.entries()) {
        plain[i] += decrypted(server, ciphers[i]!.subarray(at, at + 777));
      }
    }
    expect(plain).toEqual(pairs.map((_, i) => `for ${i} `.repeat(3000)));
  });

  it("read their records where the socket has read them", () => {
    const { client, server } = secured();
    const text = "read in place ".repeat(4500);
    const cipher = encrypted(client, text);
    let plain = "";
    for (let at = 0; at < cipher.length; at += 50_000) {
      const length = cipher.copy(readBuffer, 0, at, at + 50_000);
      plain += decrypted(server, readBuffer.subarray(0, length));
    }
    expect(plain).toBe(text);
    const two = Buffer.concat([encrypted(client, "one "), encrypted(client, "two")]);
    two.copy(readBuffer, 100);
    expect(decrypted(server, readBuffer.subarray(100, 100 + two.length))).toBe("one two");
  });

  it.each([
    ["changed", (cipher: Buffer) => cipher.fill(0, 20, 21)],
    ["cut and followed by others", (cipher: Buffer) => cipher.copyWithin(30, 40)],
    ["no records at all", (cipher: Buffer) => cipher.fill("x")],
  ])("go on when one gets bytes that are %s", (_, spoil) => {
    const [bad, good] = [secured(), secured()];
    const first = encrypted(good.client, "one ");
    expect(decrypted(good.server, first.subarray(0, 9))).toBe("");
    const spoiled = Buffer.concat([encrypted(bad.client, "x".repeat(100)), Buffer.alloc(5000, 1)]);
    spoil(spoiled);
    const refusal = thrownBy(() => bad.server.decrypt(spoiled));
    expect(refusal.alert.length).toBeGreaterThan(0);
    expect(decrypted(good.server, first.subarray(9))).toBe("one ");
    expect(decrypted(good.server, encrypted(good.client, "two"))).toBe("two");
    expect(decrypted(good.client, encrypted(good.server, "three"))).toBe("three");
  });

  it("go on when the handshake of one fails, and the peer hears by an alert why", () => {
    const good = secured();
    const stranger = new TestCa().issue({
      trustDomain: "cluster.local",
      namespace: "shop",
      serviceAccount: "client",
    });
    const context = DEFAULT_TLS_POLICY.contextFor({ ...stranger, rootsPem: [ca.rootPem] });
    const client = new TlsSession(context, "client");
    const server = session("server");
    open.push(client);
    const [, hello] = step(client, Buffer.alloc(0));
    const [, flight] = step(server, hello);
    const [, finished] = step(client, flight);
    const { message, alert } = thrownBy(() => server.handshake(finished));
    expect(message).toBe(
      "the peer's certificate is not trusted: unable to get local issuer certificate",
    );
    expect(thrownBy(() => client.decrypt(alert)).message).toMatch(/alert unknown ca/);
    expect(decrypted(good.server, encrypted(good.client, "still"))).toBe("still");
  });
});

function thrownBy(action: () => unknown): TlsError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(TlsError);
    return error as TlsError;
  }
  throw new Error("nothing was thrown");
}

function pieces(bytes: Buffer, size: number): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) found.push(bytes.subarray(at, at + size));
  return found;
}
