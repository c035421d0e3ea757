// PeerAuthentication to DENY policies (facts of istiod's ambient policies): ztunnel has no notion of it.
// STRICT means "deny who has no identity". Of several at one level the oldest counts.

import { create } from "@bufbuild/protobuf";
import {
  Action,
  type Authorization,
  AuthorizationSchema,
  Scope,
} from "@ambit/api/gen/istio/authorization_pb.ts";
import type { PeerAuthentication } from "@ambit/api/resources/kinds.ts";
import { isOlder } from "./age.ts";
import { stringMatch } from "./authorization-policy.ts";
import { type Labels, labelsMatch } from "./labels.ts";

export const STATIC_STRICT_NAME = "istio_converted_static_strict";

type Mode = "UNSET" | "DISABLE" | "PERMISSIVE" | "STRICT";

/** The PeerAuthentications that matter to one workload. */
export interface EffectivePeerAuthentication {
  readonly strict: boolean;
  /** The workload-level one with port exceptions that need a policy of their own. */
  readonly portPolicy?: PeerAuthentication;
}

/** Without a selector, or with an empty one, it speaks for its whole namespace. */
export function selectsWorkloads({ spec }: PeerAuthentication): boolean {
  return Object.keys(spec.selector?.matchLabels ?? {}).length > 0;
}

function modeOf(policy: PeerAuthentication | undefined): Mode {
  return policy?.spec.mtls?.mode ?? "UNSET";
}

function oldest(
  policies: Iterable<PeerAuthentication>,
  counts: (policy: PeerAuthentication) => boolean,
): PeerAuthentication | undefined {
  let first: PeerAuthentication | undefined;
  for (const policy of policies) {
    if (counts(policy) && (first === undefined || isOlder(policy, first))) first = policy;
  }
  return first;
}

/** The policies of a namespace. */
export type PeerAuthenticationsOf = (namespace: string) => Iterable<PeerAuthentication>;

/** The policy of a namespace as a whole: of several the oldest. */
export function namespaceLevel(
  policiesOf: PeerAuthenticationsOf,
  namespace: string,
): PeerAuthentication | undefined {
  return oldest(policiesOf(namespace), (policy) => !selectsWorkloads(policy));
}

/** Strict from the mesh and the namespace, before any workload-level policy. */
export function inheritedStrict(
  policiesOf: PeerAuthenticationsOf,
  namespace: string,
  rootNamespace: string,
): boolean {
  const level = (wanted: string) => modeOf(namespaceLevel(policiesOf, wanted));
  const own = namespace === rootNamespace ? "UNSET" : level(namespace);
  return (own === "UNSET" ? level(rootNamespace) : own) === "STRICT";
}

/** What holds for a workload: mesh, then namespace, then the oldest policy that selects it. */
export function effectivePeerAuthentication(
  policiesOf: PeerAuthenticationsOf,
  workload: { namespace: string; labels: Labels },
  rootNamespace: string,
): EffectivePeerAuthentication {
  const { namespace, labels } = workload;
  const inherited = inheritedStrict(policiesOf, namespace, rootNamespace);
  if (namespace === rootNamespace) return { strict: inherited };
  const selects = (policy: PeerAuthentication) =>
    selectsWorkloads(policy) && labelsMatch(policy.spec.selector?.matchLabels ?? {}, labels);
  const own = oldest(policiesOf(namespace), selects);
  const mode = modeOf(own);
  const strict = mode === "UNSET" ? inherited : mode === "STRICT";
  return own !== undefined && needsPortPolicy(own, inherited)
    ? { strict, portPolicy: own }
    : { strict };
}

/** Ports whose mode differs from their parent's, in the one way that needs a rule. */
function exceptions({ spec }: PeerAuthentication, strict: boolean): number[] {
  return Object.entries(spec.portLevelMtls ?? {})
    .filter(([, { mode }]) => mode !== "UNSET" && (mode === "STRICT") !== strict)
    .map(([port]) => Number(port))
    .sort((a, b) => a - b);
}

/** With mode UNSET under an inherited STRICT only PERMISSIVE ports count, not DISABLE (Istio's quirk). */
function needsPortPolicy(policy: PeerAuthentication, inherited: boolean): boolean {
  const mode = modeOf(policy);
  const strict = mode === "UNSET" ? inherited : mode === "STRICT";
  if (exceptions(policy, strict).length === 0) return false;
  if (mode !== "UNSET" || !inherited) return true;
  return Object.values(policy.spec.portLevelMtls ?? {}).some((port) => port.mode === "PERMISSIVE");
}

export function portPolicyName({ metadata }: PeerAuthentication): string {
  return `converted_peer_authentication_${metadata.name}`;
}

/** The mesh-wide policy that strict workloads refer to. */
export function staticStrictPolicy(rootNamespace: string): Authorization {
  return create(AuthorizationSchema, {
    name: STATIC_STRICT_NAME,
    namespace: rootNamespace,
    scope: Scope.WORKLOAD_SELECTOR,
    action: Action.DENY,
    rules: [{ clauses: [{ matches: [{ notPrincipals: [stringMatch("*")] }] }] }],
  });
}

/** The policy for port exceptions; undefined when every port is as its parent. */
export function portLevelPolicy(
  policy: PeerAuthentication,
  inherited: boolean,
): Authorization | undefined {
  if (!selectsWorkloads(policy) || !needsPortPolicy(policy, inherited)) return undefined;
  const mode = modeOf(policy);
  const strict = mode === "UNSET" ? inherited : mode === "STRICT";
  const ports = exceptions(policy, strict);
  const anonymous = { notPrincipals: [stringMatch("*")] };
  const rules = strict
    ? [
        {
          clauses: [
            { matches: [anonymous] },
            ...ports.map((port) => ({ matches: [{ notDestinationPorts: [port] }] })),
          ],
        },
      ]
    : ports.map((port) => ({
        clauses: [{ matches: [{ ...anonymous, destinationPorts: [port] }] }],
      }));
  return create(AuthorizationSchema, {
    name: portPolicyName(policy),
    namespace: policy.metadata.namespace ?? "",
    scope: Scope.WORKLOAD_SELECTOR,
    action: Action.DENY,
    rules,
  });
}
