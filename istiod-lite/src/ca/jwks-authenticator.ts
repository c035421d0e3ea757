// Service account tokens checked against the issuer's public keys in a JWKS file (local mode). The file
// is read again when it changes: the issuer may have rotated its key.

import { readFileSync, statSync } from "node:fs";
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify, type JWTPayload } from "jose";
import type { Clock } from "@ambit/common/process/clock.ts";
import type { Caller, TokenAuthenticator } from "./token-authenticator.ts";

export interface JwksOptions {
  readonly file: string;
  readonly issuer: string;
  /** A token must name one of these (istio-ca). */
  readonly audiences: readonly string[];
  readonly clock: Clock;
}

const SUBJECT = /^system:serviceaccount:([^:]+):([^:]+)$/;
const ALGORITHMS = ["ES256", "RS256"];

export class JwksAuthenticator implements TokenAuthenticator {
  readonly #options: JwksOptions;
  #stamp = "";
  #keys: ReturnType<typeof createLocalJWKSet> | undefined;

  constructor(options: JwksOptions) {
    this.#options = options;
  }

  async authenticate(token: string): Promise<Caller> {
    const { issuer, audiences, clock } = this.#options;
    const { payload } = await jwtVerify(token, this.#load(), {
      issuer,
      audience: [...audiences],
      algorithms: ALGORITHMS,
      currentDate: new Date(clock.nowMs()),
      requiredClaims: ["exp", "sub"],
    });
    return callerOf(payload);
  }

  #load(): ReturnType<typeof createLocalJWKSet> {
    const { file } = this.#options;
    const { mtimeMs, size } = statSync(file);
    const stamp = `${mtimeMs}:${size}`;
    if (this.#keys === undefined || stamp !== this.#stamp) {
      this.#keys = createLocalJWKSet(JSON.parse(readFileSync(file, "utf8")) as JSONWebKeySet);
      this.#stamp = stamp;
    }
    return this.#keys;
  }
}

interface KubernetesClaim {
  readonly pod?: { readonly name?: string; readonly uid?: string };
}

function callerOf(payload: JWTPayload): Caller {
  const [, namespace, serviceAccount] = SUBJECT.exec(payload.sub ?? "") ?? [];
  if (namespace === undefined || serviceAccount === undefined) {
    throw new Error(`subject "${payload.sub}" is not a service account`);
  }
  const { pod } = (payload["kubernetes.io"] ?? {}) as KubernetesClaim;
  return {
    namespace,
    serviceAccount,
    ...(pod?.name !== undefined && { podName: pod.name }),
    ...(pod?.uid !== undefined && { podUid: pod.uid }),
  };
}
