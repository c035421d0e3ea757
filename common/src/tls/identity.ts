// A SPIFFE workload identity as Istio writes it: spiffe://<trust domain>/ns/<namespace>/sa/<account>.

export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The URI form of an identity; equal identities have equal text, so it serves as a map key. */
export type SpiffeId = string & { readonly __brand: "SpiffeId" };

export const SPIFFE_SCHEME = "spiffe://";

/** Strict: after the scheme exactly five parts, with literal `ns` and `sa`, none empty. */
export function parseSpiffeId(uri: string): Identity | undefined {
  if (!uri.startsWith(SPIFFE_SCHEME)) return undefined;
  const parts = uri.slice(SPIFFE_SCHEME.length).split("/");
  const [trustDomain, ns, namespace, sa, serviceAccount] = parts;
  if (parts.length !== 5 || ns !== "ns" || sa !== "sa") return undefined;
  return trustDomain && namespace && serviceAccount
    ? { trustDomain, namespace, serviceAccount }
    : undefined;
}

export function spiffeId(identity: Identity): SpiffeId {
  return `${SPIFFE_SCHEME}${principalOf(identity)}` as SpiffeId;
}

/** The form authorization policies use: the SPIFFE ID without its scheme. */
export function principalOf({ trustDomain, namespace, serviceAccount }: Identity): string {
  return `${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
}
