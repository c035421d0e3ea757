import { describe, expect, it } from "vitest";
import type { PodView } from "../mesh/pod-view.ts";
import { enrolment, type EnrolmentReason } from "./enrolment.ts";
import { podRedirection } from "./pod-redirection.ts";
import { DEFAULT_SELECTORS, parseSelectors } from "./selector.ts";

const MODE = "istio.io/dataplane-mode";
const OPTIONS = {
  selectors: DEFAULT_SELECTORS,
  excludedNamespaces: new Set(["kube-system"]),
  systemNamespace: "istio-system",
};

function pod(changes: Partial<PodView> = {}): PodView {
  return {
    key: "shop/cart",
    uid: "u",
    name: "cart",
    namespace: "shop",
    serviceAccount: "cart",
    nodeName: "n",
    hostNetwork: false,
    terminal: false,
    deleting: false,
    ips: [],
    labels: {},
    annotations: {},
    ...changes,
  };
}

const ambientPod = { [MODE]: "ambient" };

describe("enrolment", () => {
  it.each<[string, string | undefined, string | undefined, EnrolmentReason]>([
    ["neither label", undefined, undefined, "not-selected"],
    ["the namespace's label", undefined, "ambient", "selected"],
    ["the pod's label alone", "ambient", undefined, "selected"],
    ["the pod's opt-out against the namespace", "none", "ambient", "not-selected"],
    ["the pod's label against the namespace's none", "ambient", "none", "selected"],
    ["an unknown value at the pod", "sidecar", "ambient", "selected"],
    ["an unknown value at the namespace", undefined, "yes", "not-selected"],
  ])("with %s", (_name, podMode, namespaceMode, reason) => {
    const labels = podMode === undefined ? {} : { [MODE]: podMode };
    const namespace = {
      name: "shop",
      labels: namespaceMode === undefined ? {} : { [MODE]: namespaceMode },
    };
    expect(enrolment(pod({ labels }), namespace, OPTIONS).reason).toBe(reason);
  });

  it.each<[EnrolmentReason, Partial<PodView>]>([
    ["host-network", { hostNetwork: true }],
    ["has-sidecar", { annotations: { "sidecar.istio.io/status": "{}" } }],
    ["excluded-namespace", { namespace: "kube-system" }],
    ["is-ztunnel", { namespace: "istio-system", labels: { ...ambientPod, app: "ztunnel" } }],
    ["terminated", { terminal: true }],
  ])("is refused for %s whatever the labels", (reason, changes) => {
    const decision = enrolment(pod({ labels: ambientPod, ...changes }), undefined, OPTIONS);
    expect(decision).toMatchObject({ enrolled: false, reason });
    expect(decision.message).not.toBe("");
  });

  it("treats a namespace that is not known yet as one without labels", () => {
    expect(enrolment(pod(), undefined, OPTIONS).enrolled).toBe(false);
    expect(enrolment(pod({ labels: ambientPod }), undefined, OPTIONS).enrolled).toBe(true);
  });
});

describe("enablement selectors", () => {
  it("are read from JSON, and refused with the field that is wrong", () => {
    const [first] = parseSelectors('[{"podSelector":{"matchLabels":{"a":"b"}}}]');
    expect(first).toEqual({ podSelector: { matchLabels: { a: "b" } }, namespaceSelector: {} });
    expect(() => parseSelectors('[{"podSelector":{"matchLabels":{"a":1}}}]')).toThrow(
      "0.podSelector.matchLabels.a",
    );
  });

  it("are read from the YAML of Istio's chart, which is its default", () => {
    const text = `
- podSelector:
    matchLabels: {istio.io/dataplane-mode: ambient}
- podSelector:
    matchExpressions:
    - key: istio.io/dataplane-mode
      operator: NotIn
      values: [none]
  namespaceSelector:
    matchLabels: {istio.io/dataplane-mode: ambient}
`;
    expect(parseSelectors(text)).toEqual(DEFAULT_SELECTORS);
  });

  it.each([
    ["- podSelector: {matchLabels: {a: true}}", "0.podSelector.matchLabels.a"],
    ["- podSelector: [\n- x", /^line 2: /],
    ["- podSelectors: {}", "podSelectors"],
    ["podSelector: {}", "expected array"],
  ])("%j is refused, naming the place", (text, message) => {
    expect(() => parseSelectors(text)).toThrow(message);
  });
});

describe("pod redirection", () => {
  const defaults = { dnsCapture: true, ipv6: true };
  it("follows the defaults without annotations", () => {
    const expected = { dnsCapture: true, inboundCapture: true, virtualInterfaces: [], ipv6: true };
    expect(podRedirection(pod(), defaults)).toEqual(expected);
  });

  it("follows the annotations, and drops what could not be an interface", () => {
    const annotations = {
      "ambient.istio.io/dns-capture": "false",
      "ambient.istio.io/bypass-inbound-capture": "true",
      "istio.io/reroute-virtual-interfaces": 'docker0, "; flush ruleset ,br-1,waytoolongforaname',
    };
    expect(podRedirection(pod({ annotations }), defaults)).toEqual({
      dnsCapture: false,
      inboundCapture: false,
      virtualInterfaces: ["docker0", "br-1"],
      ipv6: true,
    });
  });

  it("treats other values of the annotations as absent", () => {
    const annotations = { "ambient.istio.io/dns-capture": "yes" };
    expect(podRedirection(pod({ annotations }), defaults).dnsCapture).toBe(true);
  });
});
