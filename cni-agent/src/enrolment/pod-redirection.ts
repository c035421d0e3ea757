// How an enrolled pod's traffic is captured, from its annotations and the agent's defaults. Pure.

import type { PodRedirection } from "../rules/backend.ts";
import type { PodView } from "../mesh/pod-view.ts";

export interface RedirectionDefaults {
  readonly dnsCapture: boolean;
  readonly ipv6: boolean;
}

const BYPASS_INBOUND = "ambient.istio.io/bypass-inbound-capture";
const DNS_CAPTURE = "ambient.istio.io/dns-capture";
const VIRTUAL_INTERFACES = "istio.io/reroute-virtual-interfaces";

/** IFNAMSIZ less the end; nothing that means something to nft's parser. */
const INTERFACE_NAME = /^[A-Za-z0-9_.-]{1,15}$/;

/** A pod with more is misconfigured; the rest is not captured specially. */
const INTERFACES_MAX = 16;

/** Annotations that are not understood are as if absent; interface names that cannot be are left out. */
export function podRedirection(pod: PodView, defaults: RedirectionDefaults): PodRedirection {
  const { annotations } = pod;
  const interfaces = (annotations[VIRTUAL_INTERFACES] ?? "").split(",").map((name) => name.trim());
  return {
    dnsCapture: flag(annotations[DNS_CAPTURE], defaults.dnsCapture),
    inboundCapture: !flag(annotations[BYPASS_INBOUND], false),
    virtualInterfaces: interfaces
      .filter((name) => INTERFACE_NAME.test(name))
      .slice(0, INTERFACES_MAX),
    ipv6: defaults.ipv6,
  };
}

function flag(text: string | undefined, fallback: boolean): boolean {
  return text === "true" ? true : text === "false" ? false : fallback;
}
