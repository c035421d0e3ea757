// Who calls: a service account, from a bearer token. TokenReview on Kubernetes, JWKS in local mode.

export interface Caller {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The pod that the token is bound to. */
  readonly podName?: string;
  readonly podUid?: string;
}

export interface TokenAuthenticator {
  /** Rejects with an Error that says why, for our log; callers are told nothing of it. */
  authenticate(token: string): Promise<Caller>;
}

/** The token of an `authorization: Bearer …` header; undefined without one. */
export function bearerToken(header: string | undefined): string | undefined {
  const match = /^Bearer (\S+)$/i.exec(header ?? "");
  return match?.[1];
}
