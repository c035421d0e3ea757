import { describe, expect, it } from "vitest";
import { type KnownPod, NodeAuthorizer } from "./node-authorizer.ts";
import type { Caller } from "./token-authenticator.ts";

const ztunnel: KnownPod = {
  uid: "z-1",
  namespace: "istio-system",
  serviceAccount: "ztunnel",
  node: "node-1",
  failed: false,
};
const app: KnownPod = { ...ztunnel, uid: "a-1", namespace: "shop", serviceAccount: "web" };
const caller: Caller = {
  namespace: "istio-system",
  serviceAccount: "ztunnel",
  podName: "ztunnel-1",
  podUid: "z-1",
};
const wanted = { trustDomain: "td", namespace: "shop", serviceAccount: "web" };

interface Situation {
  readonly caller?: Partial<Record<keyof Caller, string | undefined>>;
  readonly proxy?: Partial<KnownPod> | null;
  readonly app?: Partial<KnownPod>;
  readonly trusted?: readonly string[];
}

function refusal({ caller: changes, proxy = {}, app: appChanges, trusted }: Situation) {
  const pods = proxy === null ? [] : [{ ...ztunnel, ...proxy }];
  const all = [...pods, { ...app, ...appChanges }];
  const authorizer = new NodeAuthorizer(trusted ?? ["istio-system/ztunnel"], {
    pod: (namespace, name) =>
      namespace === "istio-system" && name === "ztunnel-1" ? pods[0] : undefined,
    podsOnNode: (node) => all.filter((pod) => pod.node === node),
  });
  return authorizer.refusal({ ...caller, ...changes } as Caller, wanted);
}

describe("a node proxy", () => {
  it("may act for a service account that runs on its node", () => {
    expect(refusal({})).toBeUndefined();
  });

  it.each<[string, Situation, RegExp]>([
    ["of an account that is not trusted", { caller: { serviceAccount: "web" } }, /not a trusted/],
    ["of the right account elsewhere", { caller: { namespace: "shop" } }, /not a trusted/],
    ["when nobody is trusted", { trusted: [] }, /not a trusted/],
    ["whose token is bound to no pod", { caller: { podName: undefined } }, /not bound/],
    ["whose token names no pod uid", { caller: { podUid: undefined } }, /not bound/],
    ["whose pod is not known", { proxy: null }, /not known/],
    ["whose pod was replaced", { proxy: { uid: "z-2" } }, /uid differs/],
    ["whose pod has another account", { proxy: { serviceAccount: "x" } }, /another service/],
    ["for an account on another node", { app: { node: "node-2" } }, /no pod on node node-1/],
    ["for an account of another namespace", { app: { namespace: "x" } }, /no pod on node/],
    ["for an account that only failed pods have", { app: { failed: true } }, /no pod on node/],
  ])("%s is refused", (_, situation, reason) => {
    expect(refusal(situation)).toMatch(reason);
  });
});
