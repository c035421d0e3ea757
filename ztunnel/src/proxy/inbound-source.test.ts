import { describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { testContext } from "../testing/test-context.ts";
import { sourceParty } from "./inbound-source.ts";

const BAGGAGE = "k8s.cluster.name=west,k8s.namespace.name=ns,k8s.deployment.name=told";
const identity = { trustDomain: "cluster.local", namespace: "ns", serviceAccount: "client" };

function name(headers: Record<string, string>, ip = "10.0.0.1", responseBaggage = true) {
  const mesh = new TestMesh()
    .workload("client", ["10.0.0.1"], { workloadName: "known" })
    .workload("web", ["10.0.0.2"]);
  const context = testContext({ state: mesh.state, config: { network: "home", responseBaggage } });
  const peer = { ip: ip as Ip, identity, headers: new Map(Object.entries(headers)) };
  return sourceParty(context, mesh.get("web"), peer).workload;
}

describe("the source of an inbound tunnel", () => {
  it.each<[string, Record<string, string>, string, string | undefined]>([
    ["is what xDS knows by its address", { baggage: BAGGAGE }, "10.0.0.1", "known"],
    ["is what it says when xDS knows nothing", { baggage: BAGGAGE }, "10.0.0.9", "told"],
    ["is unknown when nobody says anything", {}, "10.0.0.9", undefined],
    [
      "is what it says when it comes through a gateway: the address is the gateway's",
      { baggage: BAGGAGE, "x-forwarded-network": "far" },
      "10.0.0.1",
      "told",
    ],
    [
      "is known by address when the gateway's network is ours, in any case",
      { baggage: BAGGAGE, "x-forwarded-network": "HOME" },
      "10.0.0.1",
      "known",
    ],
    [
      "is not believed when it claims a namespace that its certificate does not name",
      { baggage: "k8s.namespace.name=kube-system,k8s.deployment.name=told" },
      "10.0.0.9",
      undefined,
    ],
  ])("%s", (_, headers, ip, expected) => {
    expect(name(headers, ip)).toBe(expected);
  });

  it("is not believed at all when baggage is switched off", () => {
    expect(name({ baggage: BAGGAGE }, "10.0.0.9", false)).toBeUndefined();
  });
});
