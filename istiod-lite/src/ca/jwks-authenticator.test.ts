import { mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { JwksAuthenticator } from "./jwks-authenticator.ts";

type Keys = Awaited<ReturnType<typeof generateKeyPair>>;

const clock = new FakeClock();
const nowSeconds = clock.nowMs() / 1_000;
let folder: string;
let file: string;
let keys: Keys;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ambit-jwks-"));
  file = join(folder, "jwks.json");
  keys = await generateKeyPair("ES256");
  await publish(keys);
});
afterAll(() => rmSync(folder, { recursive: true }));

async function publish({ publicKey }: Keys): Promise<void> {
  writeFileSync(
    file,
    JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), alg: "ES256" }] }),
  );
}

const claims: JWTPayload = {
  iss: "issuer",
  aud: "istio-ca",
  sub: "system:serviceaccount:ns:sa",
  exp: nowSeconds + 60,
  "kubernetes.io": { pod: { name: "pod", uid: "uid" } },
};

/** Claims to change; undefined takes one away. */
type Claims = { readonly [K in keyof JWTPayload]: JWTPayload[K] | undefined };

const token = (changes: Claims = {}, { privateKey }: Keys = keys) =>
  new SignJWT({ ...claims, ...changes } as JWTPayload)
    .setProtectedHeader({ alg: "ES256" })
    .sign(privateKey);

const authenticator = () =>
  new JwksAuthenticator({ file, issuer: "issuer", audiences: ["istio-ca", "other"], clock });

describe("a token", () => {
  it("says who the caller is, and which pod it is bound to", async () => {
    expect(await authenticator().authenticate(await token())).toEqual({
      namespace: "ns",
      serviceAccount: "sa",
      podName: "pod",
      podUid: "uid",
    });
  });

  it("may be bound to no pod, and name one of several audiences", async () => {
    const unbound = await token({ "kubernetes.io": undefined, aud: ["x", "other"] });
    expect(await authenticator().authenticate(unbound)).toEqual({
      namespace: "ns",
      serviceAccount: "sa",
    });
  });

  it.each<[string, Claims]>([
    ["of another issuer", { iss: "evil" }],
    ["for another audience", { aud: "kubernetes" }],
    ["that has expired", { exp: nowSeconds - 1 }],
    ["that never expires", { exp: undefined }],
    ["that is not valid yet", { nbf: nowSeconds + 60 }],
    ["of no service account", { sub: "system:node:a" }],
    ["of a service account with a colon too many", { sub: "system:serviceaccount:a:b:c" }],
    ["of nobody", { sub: undefined }],
  ])("%s is refused", async (_, changes) => {
    await expect(authenticator().authenticate(await token(changes))).rejects.toThrow();
  });

  it("of another key is refused, until the issuer publishes that key", async () => {
    const rotated = await generateKeyPair("ES256");
    const one = authenticator();
    const fresh = await token({}, rotated);
    await expect(one.authenticate(fresh)).rejects.toThrow();
    await publish(rotated);
    utimesSync(file, 1, 2);
    expect(await one.authenticate(fresh)).toMatchObject({ serviceAccount: "sa" });
    await expect(one.authenticate(await token())).rejects.toThrow();
    await publish(keys);
  });

  it.each(["", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])("is not %j", async (text) => {
    await expect(authenticator().authenticate(text)).rejects.toThrow();
  });

  it("signed with a shared secret, or not at all, is refused", async () => {
    const secret = new TextEncoder().encode("x".repeat(32));
    const shared = await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(secret);
    await expect(authenticator().authenticate(shared)).rejects.toThrow();
  });
});
