import { once } from "node:events";
import { generateKeyPairSync } from "node:crypto";
import net from "node:net";
import { describe, expect, it } from "vitest";
import type { ByteSocket } from "../net/byte-socket.ts";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { issueRevocationList } from "../testing/revocation-list-issuer.ts";
import { TestCa } from "../testing/test-ca.ts";
import { certificateFromChain, type WorkloadCertificate } from "./certificate.ts";
import { type Identity, spiffeId, type SpiffeId } from "./identity.ts";
import { parseRevocationLists } from "./revocation-list.ts";
import { Revocations } from "./revocations.ts";
import { generateKeyPair, issueCertificate } from "./x509.ts";
import { secureClient, secureServer, type SecureResult } from "./secure.ts";

const HOUR_MS = 3_600_000;
const ca = new TestCa();
const identity = (serviceAccount: string, trustDomain = "cluster.local"): Identity => ({
  trustDomain,
  namespace: "shop",
  serviceAccount,
});
const client = ca.issue(identity("client"));
const server = ca.issue(identity("server"));

async function handshake(
  clientCertificate: WorkloadCertificate,
  serverCertificate: WorkloadCertificate,
  allowed: SpiffeId[] = [spiffeId(identity("server"))],
  revocations?: Revocations,
): Promise<{ client: SecureResult; server: SecureResult }> {
  const listener = net.createServer({ allowHalfOpen: true });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const accepted = once(listener, "connection") as Promise<[net.Socket]>;
  const raw = net.connect((listener.address() as net.AddressInfo).port, "127.0.0.1");
  const [rawServer] = await accepted;
  const [atClient, atServer] = await Promise.all([
    secureClient(asByteSocket(raw), clientCertificate, allowed, { revocations }),
    secureServer(asByteSocket(rawServer), serverCertificate, { revocations }),
  ]);
  if (atClient.ok && atServer.ok) {
    atServer.socket.write(Buffer.from("bytes"));
    expect(await firstBytes(atClient.socket)).toBe("bytes");
    expect(atClient.socket.session.protocol).toBe("TLSv1.3");
  }
  raw.destroy();
  rawServer.destroy();
  listener.close();
  return { client: atClient, server: atServer };
}

describe("mutual TLS between workloads", () => {
  it("proves both identities and speaks h2 over TLS 1.3 without SNI", async () => {
    const result = await handshake(client, server);
    expect(result.client).toMatchObject({ ok: true, peer: identity("server") });
    expect(result.server).toMatchObject({ ok: true, peer: identity("client") });
  });

  it.each<[string, WorkloadCertificate]>([
    ["has expired", ca.issue(identity("client"), { notAfterMs: Date.now() - 1000 })],
    ["is not valid yet", ca.issue(identity("client"), { notBeforeMs: Date.now() + HOUR_MS / 2 })],
    ["may only be used by servers", ca.issue(identity("client"), { purposes: ["serverAuth"] })],
    [
      "comes from another root",
      { ...new TestCa().issue(identity("client")), rootsPem: [ca.rootPem] },
    ],
    [
      "holds no SPIFFE identity",
      ca.issue(identity("client"), { sans: [{ type: "dns", value: "client" }] }),
    ],
    ["is of another trust domain", ca.issue(identity("client", "elsewhere"))],
  ])("the server refuses a client whose certificate %s", async (_, certificate) => {
    const result = await handshake(certificate, server);
    expect(result.server.ok).toBe(false);
  });

  it.each<[string, WorkloadCertificate, string]>([
    ["has expired", ca.issue(identity("server"), { notAfterMs: Date.now() - 1000 }), "HANDSHAKE"],
    [
      "may only be used by clients",
      ca.issue(identity("server"), { purposes: ["clientAuth"] }),
      "HANDSHAKE",
    ],
    [
      "comes from another root",
      { ...new TestCa().issue(identity("server")), rootsPem: [ca.rootPem] },
      "HANDSHAKE",
    ],
    ["is for someone else", ca.issue(identity("other")), "WRONG_IDENTITY"],
    ["is of another trust domain", ca.issue(identity("server", "elsewhere")), "WRONG_IDENTITY"],
    [
      "holds no SPIFFE identity",
      ca.issue(identity("server"), { sans: [{ type: "dns", value: "server" }] }),
      "NO_IDENTITY",
    ],
  ])("the client refuses a server whose certificate %s", async (_, certificate, code) => {
    const result = await handshake(client, certificate);
    expect(result.client).toMatchObject({ ok: false, code });
  });

  it("accepts any of several allowed identities, and nobody when none is allowed", async () => {
    const either = [spiffeId(identity("other")), spiffeId(identity("server"))];
    expect((await handshake(client, server, either)).client.ok).toBe(true);
    expect((await handshake(client, server, [])).client).toMatchObject({ code: "WRONG_IDENTITY" });
  });

  it("trusts every root of a bundle, so that roots can be rotated", async () => {
    const next = new TestCa();
    const both = [ca.rootPem, next.rootPem];
    const rotated = { ...next.issue(identity("server")), rootsPem: both };
    const result = await handshake({ ...client, rootsPem: both }, rotated);
    expect([result.client.ok, result.server.ok]).toEqual([true, true]);
  });
});

describe("revoked peers", () => {
  const intermediate = new TestCa("intermediate", ca);
  const good = intermediate.issue(identity("client"));
  const bad = intermediate.issue(identity("server"));
  const serverId = [spiffeId(identity("server"))];

  function revoked(...pems: string[]): Revocations {
    const revocations = new Revocations();
    revocations.replace(parseRevocationLists(Buffer.from(pems.join(""))));
    return revocations;
  }

  it("the client refuses a server whose certificate was taken back", async () => {
    const list = revoked(intermediate.revoke(bad.serialNumber));
    const result = await handshake(good, bad, serverId, list);
    expect(result.client).toMatchObject({ ok: false, code: "REVOKED" });
    expect(result.client).toHaveProperty("reason", expect.stringContaining("revoked by CRL"));
  });

  it("the server refuses a client whose certificate was taken back", async () => {
    const list = revoked(intermediate.revoke(good.serialNumber));
    const result = await handshake(good, bad, serverId, list);
    expect(result.server).toMatchObject({ ok: false, code: "REVOKED" });
  });

  it("both refuse whom a revoked intermediate vouches for", async () => {
    const list = revoked(ca.revoke(intermediate.serialNumber));
    const result = await handshake(good, bad, serverId, list);
    expect(result.client).toMatchObject({ ok: false, code: "REVOKED" });
  });

  it("all others pass, with the path through which they are trusted", async () => {
    const list = revoked(ca.revoke("0123"), intermediate.revoke("4567"));
    const result = await handshake(good, bad, serverId, list);
    expect(result.client).toMatchObject({ ok: true, path: [{}, {}] });
    expect(result.server).toMatchObject({ ok: true, path: [{}, {}] });
  });

  it("a wrong identity is told before a revocation", async () => {
    const list = revoked(intermediate.revoke(bad.serialNumber));
    const result = await handshake(good, bad, [spiffeId(identity("other"))], list);
    expect(result.client).toMatchObject({ code: "WRONG_IDENTITY" });
  });
});

it("a CA may have an RSA key, and its lists count", async () => {
  const key = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const validity = { notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + HOUR_MS };
  const rootPem = issueCertificate(
    { ...validity, publicKey: key.publicKey, organization: "rsa", isCa: true },
    { selfKey: key.privateKey },
  );
  const issuer = { certificatePem: rootPem, privateKey: key.privateKey };
  const issue = (serviceAccount: string) => {
    const own = generateKeyPair();
    const leafPem = issueCertificate(
      {
        ...validity,
        publicKey: own.publicKey,
        isCa: false,
        purposes: ["serverAuth", "clientAuth"],
        sans: [{ type: "uri", value: spiffeId(identity(serviceAccount)) }],
      },
      issuer,
    );
    const keyPem = own.privateKey.export({ type: "pkcs8", format: "pem" });
    return certificateFromChain(identity(serviceAccount), keyPem, [leafPem, rootPem]);
  };
  const [own, peer] = [issue("client"), issue("server")];
  const allowed = [spiffeId(identity("server"))];
  expect((await handshake(own, peer, allowed)).server.ok).toBe(true);
  const revocations = new Revocations();
  const serialNumbers = [peer.serialNumber];
  revocations.replace(
    parseRevocationLists(Buffer.from(issueRevocationList({ serialNumbers }, issuer))),
  );
  const { client: refused } = await handshake(own, peer, allowed, revocations);
  expect(refused).toMatchObject({ ok: false, code: "REVOKED" });
});

/** What comes first. */
function firstBytes(socket: ByteSocket): Promise<string> {
  return new Promise((resolve) => {
    const ignore = () => undefined;
    const onBytes = (bytes: Buffer) => resolve(bytes.toString());
    socket.handler = { onBytes, onEnd: ignore, onWritable: ignore, onClose: ignore };
    socket.resume();
  });
}
