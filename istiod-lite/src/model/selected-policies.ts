// The policies that a workload names in its resource: those that select it by labels, and what
// PeerAuthentication makes of it.

import { isSentToZtunnel } from "../translate/authorization-policy.ts";
import { type Labels, labelsMatch } from "../translate/labels.ts";
import {
  effectivePeerAuthentication,
  portPolicyName,
  STATIC_STRICT_NAME,
} from "../translate/peer-authentication.ts";
import type { MeshSettings } from "../translate/settings.ts";
import type { MeshObjects } from "./mesh-objects.ts";

/** Keys "namespace/name", in no particular order. */
export function policiesSelecting(
  objects: Pick<MeshObjects, "policies" | "peerAuthentications">,
  workload: { readonly namespace: string; readonly labels: Labels },
  settings: MeshSettings,
): string[] {
  const { policies, peerAuthentications } = objects;
  const { namespace, labels } = workload;
  const { rootNamespace } = settings;
  const keys: string[] = [];
  const scopes = namespace === rootNamespace ? [namespace] : [namespace, rootNamespace];
  for (const scope of scopes) {
    for (const policy of policies.inNamespace(scope)) {
      const { selector } = policy.spec;
      if (selector === undefined || !labelsMatch(selector.matchLabels ?? {}, labels)) continue;
      if (isSentToZtunnel(policy, settings)) keys.push(`${scope}/${policy.metadata.name}`);
    }
  }
  if (peerAuthentications.size === 0) return keys;
  const { strict, portPolicy } = effectivePeerAuthentication(
    (of) => peerAuthentications.inNamespace(of),
    workload,
    rootNamespace,
  );
  if (portPolicy !== undefined) keys.push(`${namespace}/${portPolicyName(portPolicy)}`);
  else if (strict) keys.push(`${rootNamespace}/${STATIC_STRICT_NAME}`);
  return keys;
}
