// AuthorizationPolicies and PeerAuthentications: what becomes of them, and what their authors are told.

import type { AuthorizationPolicy, PeerAuthentication } from "@ambit/api/resources/kinds.ts";
import {
  peerAuthenticationStatus,
  waypointPolicyStatus,
  ztunnelPolicyStatus,
} from "../status/rule-verdicts.ts";
import { translateAuthorizationPolicy } from "../translate/authorization-policy.ts";
import {
  inheritedStrict,
  namespaceLevel,
  portLevelPolicy,
  staticStrictPolicy,
} from "../translate/peer-authentication.ts";
import { authorizationOutput, type Output } from "./output.ts";
import { targetsOf } from "./policy-targets.ts";
import type { Translation } from "./translation.ts";

export function policyOutputs(policy: AuthorizationPolicy, translation: Translation): Output[] {
  const { objects, waypoints, settings, onStatus } = translation;
  const translated = translateAuthorizationPolicy(policy, settings);
  if (translated === undefined) {
    onStatus(waypointPolicyStatus(policy, targetsOf(policy, objects, waypoints, settings)));
    return [];
  }
  onStatus(ztunnelPolicyStatus(policy, translated, settings));
  const { authorization } = translated;
  return authorization === undefined ? [] : [authorizationOutput(authorization)];
}

export function peerAuthenticationOutputs(
  policy: PeerAuthentication,
  { objects, settings, onStatus }: Translation,
): Output[] {
  const { namespace = "" } = policy.metadata;
  const { rootNamespace } = settings;
  const policiesOf = (of: string) => objects.peerAuthentications.inNamespace(of);
  const inherited = inheritedStrict(policiesOf, namespace, rootNamespace);
  const converted = namespace === rootNamespace ? undefined : portLevelPolicy(policy, inherited);
  const resource = converted && `${namespace}/${converted.name}`;
  const counts = namespaceLevel(policiesOf, namespace);
  onStatus(peerAuthenticationStatus(policy, counts, resource, settings));
  return converted === undefined ? [] : [authorizationOutput(converted)];
}

/** The policy that strict workloads name; there as soon as anybody speaks of mutual TLS. */
export function staticPolicyOutputs({ objects, settings }: Translation): Output[] {
  const needed = objects.peerAuthentications.size > 0;
  return needed ? [authorizationOutput(staticStrictPolicy(settings.rootNamespace))] : [];
}
