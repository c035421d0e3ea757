import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { afterEach, describe, expect, it } from "vitest";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { TestCa } from "../testing/test-ca.ts";
import { spiffeId } from "./identity.ts";
import { secureClient, secureServer, type SecureResult } from "./secure.ts";
import { DEFAULT_TLS_POLICY, TlsPolicy, type TlsSettings } from "./tls-policy.ts";

const ca = new TestCa();
const identity = (serviceAccount: string) => ({
  trustDomain: "cluster.local",
  namespace: "ns",
  serviceAccount,
});
const server = ca.issue(identity("server"));
const client = ca.issue(identity("client"));

const policy = (changes: Partial<TlsSettings> = {}) =>
  new TlsPolicy({ tls12: false, compliance: "none", ...changes });
const pqc = policy({ compliance: "pqc" });
const fips = policy({ compliance: "fips-140-2" });

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

/** A server with `policy`; `results` are its verdicts. */
async function serve(ours: TlsPolicy) {
  const results: Promise<SecureResult>[] = [];
  const listener = net.createServer({ allowHalfOpen: true }, (raw) => {
    raw.on("error", () => undefined);
    results.push(
      secureServer(asByteSocket(raw), server, { policy: ours }).then((result) => {
        if (result.ok) {
          result.socket.write(Buffer.from("hello"));
          result.socket.endAndClose();
        }
        return result;
      }),
    );
  });
  listener.listen(0, "127.0.0.1");
  closing.push(() => listener.close());
  await once(listener, "listening");
  return { results, port: (listener.address() as net.AddressInfo).port };
}

/** A peer that is not ours: it speaks TLS as `options` say. Resolves with what was agreed on. */
async function stranger(port: number, options: tls.ConnectionOptions) {
  const socket = tls.connect({
    port,
    host: "127.0.0.1",
    key: client.keyPem,
    cert: client.leafPem,
    ca: ca.rootPem,
    ALPNProtocols: ["h2"],
    checkServerIdentity: () => undefined,
    ...options,
  });
  let session: Buffer | undefined;
  socket.on("session", (next) => (session = next));
  const failed = once(socket, "error").then(([error]) => (error as Error).message);
  const done = once(socket, "secureConnect").then(async () => {
    socket.resume();
    const agreed = {
      protocol: socket.getProtocol(),
      cipher: socket.getCipher().standardName,
      group: (socket.getEphemeralKeyInfo() as { name?: string }).name,
      reused: socket.isSessionReused(),
    };
    await once(socket, "end");
    socket.destroy();
    return { ...agreed, session };
  });
  done.catch(() => undefined);
  failed.catch(() => undefined);
  return Promise.race([done, failed]);
}

describe("TLS between our own", () => {
  async function agree(ours: TlsPolicy, theirs: TlsPolicy) {
    const { port, results } = await serve(ours);
    const raw = net.connect(port, "127.0.0.1");
    const allowed = [spiffeId(identity("server"))];
    const result = await secureClient(asByteSocket(raw), client, allowed, { policy: theirs });
    await results[0];
    if (!result.ok) return result.reason;
    const { protocol, group } = result.socket.session;
    const agreed = [protocol, group];
    result.socket.destroy();
    return agreed;
  }

  it.each<[string, TlsPolicy, TlsPolicy, string]>([
    ["post-quantum by default", policy(), policy(), "X25519MLKEM768"],
    ["post-quantum where one side insists", pqc, policy(), "X25519MLKEM768"],
    ["post-quantum where both insist", pqc, pqc, "X25519MLKEM768"],
    ["a NIST curve where one side must", policy(), fips, "secp256r1"],
    ["a NIST curve where both must", fips, fips, "secp256r1"],
    [
      "the newer version even if 1.2 is served",
      policy({ tls12: true }),
      policy(),
      "X25519MLKEM768",
    ],
  ])("is %s", async (_, ours, theirs, group) => {
    expect(await agree(ours, theirs)).toEqual(["TLSv1.3", group]);
  });

  it("fails when one insists on what the other may not use", async () => {
    expect(await agree(pqc, fips)).toMatch(/^TLS handshake failed/);
  });
});

describe("TLS with strangers", () => {
  const agreedOf = async (ours: TlsPolicy, options: tls.ConnectionOptions) =>
    stranger((await serve(ours)).port, options);

  it.each<[string, TlsPolicy, tls.ConnectionOptions, object]>([
    ["X25519", policy(), { ecdhCurve: "X25519" }, { group: "X25519" }],
    ["P-384", policy(), { ecdhCurve: "P-384" }, { group: "secp384r1" }],
    [
      "the smaller AES",
      policy(),
      { ciphers: "TLS_AES_128_GCM_SHA256" },
      { cipher: "TLS_AES_128_GCM_SHA256" },
    ],
    [
      "TLS 1.2 where it is enabled",
      policy({ tls12: true }),
      { maxVersion: "TLSv1.2" },
      { protocol: "TLSv1.2", cipher: expect.stringMatching(/^TLS_ECDHE_ECDSA_WITH_AES_.*_GCM/) },
    ],
  ])("is spoken with %s", async (_, ours, options, expected) => {
    expect(await agreedOf(ours, options)).toMatchObject(expected);
  });

  it.each<[string, TlsPolicy, tls.ConnectionOptions]>([
    ["TLS 1.2", policy(), { maxVersion: "TLSv1.2" }],
    ["TLS 1.2 under pqc", policy({ tls12: true, compliance: "pqc" }), { maxVersion: "TLSv1.2" }],
    ["ChaCha20", policy(), { ciphers: "TLS_CHACHA20_POLY1305_SHA256" }],
    ["X25519 under pqc", pqc, { ecdhCurve: "X25519" }],
    ["X25519 under fips-140-2", fips, { ecdhCurve: "X25519" }],
    ["another protocol than HTTP/2", policy(), { ALPNProtocols: ["http/1.1"] }],
  ])("is refused with %s alone", async (_, ours, options) => {
    expect(await agreedOf(ours, options)).toMatch(/alert/);
  });

  it("is spoken with who offers no protocol at all", async () => {
    const { port, results } = await serve(policy());
    const options: tls.ConnectionOptions = {};
    await stranger(port, { ...options, ALPNProtocols: [] });
    expect(await results[0]).toMatchObject({ ok: true });
  });

  it.each<[string, TlsPolicy, tls.ConnectionOptions]>([
    ["1.3", policy(), {}],
    ["1.2", policy({ tls12: true }), { maxVersion: "TLSv1.2" }],
  ])("gives nobody a session that could be resumed (TLS %s)", async (_, ours, options) => {
    const { port, results } = await serve(ours);
    const first = await stranger(port, options);
    expect(first).toMatchObject({ session: undefined, reused: false });
    expect(await results[0]).toMatchObject({ ok: true });
  });
});

it("builds one context per certificate", () => {
  const context = DEFAULT_TLS_POLICY.contextFor(server);
  expect(DEFAULT_TLS_POLICY.contextFor(server)).toBe(context);
  expect(DEFAULT_TLS_POLICY.contextFor(client)).not.toBe(context);
});
