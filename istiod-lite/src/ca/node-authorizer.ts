// Who may ask for certificates of others: a node proxy, for the service accounts of pods on its own node
// (facts of istiod's node authorizer).

import type { Identity } from "@ambit/common/tls/identity.ts";
import type { Caller } from "./token-authenticator.ts";

/** A pod as far as this decision needs it. */
export interface KnownPod {
  readonly uid: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly node: string;
  readonly failed: boolean;
}

export interface PodIndex {
  pod(namespace: string, name: string): KnownPod | undefined;
  podsOnNode(node: string): Iterable<KnownPod>;
}

export class NodeAuthorizer {
  readonly #trusted: ReadonlySet<string>;
  readonly #pods: PodIndex;

  /** `trustedAccounts` are "namespace/account" of node proxies; none refuses all impersonation. */
  constructor(trustedAccounts: readonly string[], pods: PodIndex) {
    this.#trusted = new Set(trustedAccounts);
    this.#pods = pods;
  }

  /** undefined when `caller` may act for `wanted`, else why not. The trust domain is not looked at. */
  refusal(caller: Caller, wanted: Identity): string | undefined {
    const account = `${caller.namespace}/${caller.serviceAccount}`;
    if (!this.#trusted.has(account)) return `${account} is not a trusted node account`;
    if (caller.podName === undefined || caller.podUid === undefined)
      return "the token is not bound to a pod";
    const pod = this.#pods.pod(caller.namespace, caller.podName);
    if (pod === undefined) return `pod ${caller.namespace}/${caller.podName} is not known`;
    if (pod.uid !== caller.podUid) return `pod ${caller.podName} was replaced: its uid differs`;
    if (pod.serviceAccount !== caller.serviceAccount)
      return `pod ${caller.podName} runs as another service account`;
    for (const candidate of this.#pods.podsOnNode(pod.node)) {
      if (candidate.failed || candidate.namespace !== wanted.namespace) continue;
      if (candidate.serviceAccount === wanted.serviceAccount) return undefined;
    }
    return `no pod on node ${pod.node} runs as ${wanted.namespace}/${wanted.serviceAccount}`;
  }
}
