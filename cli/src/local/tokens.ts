// The local issuer of workload tokens, in place of Kubernetes' TokenRequest: a key per run, its public
// half as a JWKS file, and one token file per ztunnel. The private key never leaves this process.

import { renameSync, writeFileSync } from "node:fs";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import type { Clock } from "@ambit/common/process/clock.ts";

export const TOKEN_ISSUER = "https://local.ambit.io";
export const TOKEN_AUDIENCE = "istio-ca";
/** As long as Istio's projected tokens. */
export const TOKEN_TTL_SECONDS = 43_200;
const KEY_ID = "local";
const ALGORITHM = "ES256";

/** The pod a token speaks for. */
export interface TokenSubject {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly podName: string;
  readonly podUid: string;
  readonly nodeName: string;
}

export class TokenIssuer {
  readonly #key: CryptoKey;
  readonly #clock: Clock;

  private constructor(key: CryptoKey, clock: Clock) {
    this.#key = key;
    this.#clock = clock;
  }

  /** Makes a key and writes its public half to `jwksFile`. */
  static async create(jwksFile: string, clock: Clock): Promise<TokenIssuer> {
    const { publicKey, privateKey } = await generateKeyPair(ALGORITHM);
    const key = { ...(await exportJWK(publicKey)), kid: KEY_ID, alg: ALGORITHM, use: "sig" };
    writeFileSync(jwksFile, JSON.stringify({ keys: [key] }));
    return new TokenIssuer(privateKey, clock);
  }

  /** A token with the claims of a Kubernetes pod-bound token. */
  issue(subject: TokenSubject): Promise<string> {
    const { namespace, serviceAccount, podName, podUid, nodeName } = subject;
    const nowSeconds = Math.floor(this.#clock.nowMs() / 1000);
    const claims = {
      "kubernetes.io": {
        namespace,
        node: { name: nodeName },
        pod: { name: podName, uid: podUid },
        serviceaccount: { name: serviceAccount },
      },
    };
    return new SignJWT(claims)
      .setProtectedHeader({ alg: ALGORITHM, kid: KEY_ID })
      .setIssuer(TOKEN_ISSUER)
      .setSubject(`system:serviceaccount:${namespace}:${serviceAccount}`)
      .setAudience([TOKEN_AUDIENCE])
      .setIssuedAt(nowSeconds)
      .setNotBefore(nowSeconds)
      .setExpirationTime(nowSeconds + TOKEN_TTL_SECONDS)
      .sign(this.#key);
  }

  /** Writes a token where its user reads it anew for every call. */
  async write(subject: TokenSubject, file: string): Promise<void> {
    writeFileSync(`${file}.new`, await this.issue(subject), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }
}
