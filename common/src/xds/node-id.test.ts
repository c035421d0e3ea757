import { describe, expect, it } from "vitest";
import { parseNodeId } from "./node-id.ts";

describe("node ids", () => {
  it("name a proxy by its pod", () => {
    expect(
      parseNodeId("ztunnel~10.0.0.1~ztunnel-x.y.istio-system~istio-system.svc.cluster.local"),
    ).toEqual({
      type: "ztunnel",
      ip: "10.0.0.1",
      name: "ztunnel-x.y",
      namespace: "istio-system",
    });
  });

  it.each([
    "",
    "ztunnel",
    "ztunnel~10.0.0.1~pod.ns",
    "ztunnel~10.0.0.1~pod~domain",
    "ztunnel~10.0.0.1~.ns~domain",
    "ztunnel~10.0.0.1~pod.~domain",
    "~10.0.0.1~pod.ns~domain",
    "ztunnel~~pod.ns~domain",
    "ztunnel~10.0.0.1~pod.ns~domain~more",
  ])("refuses %j", (id) => expect(parseNodeId(id)).toBeUndefined());
});
