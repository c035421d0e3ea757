import { describe, expect, it } from "vitest";
import type { Pod } from "@ambit/api/resources/kinds.ts";
import type { ResourceEvent } from "@ambit/common/resources/source.ts";
import { PodDirectory } from "./pod-directory.ts";

function upsert(name: string, node: string | undefined, phase = "Running"): ResourceEvent {
  const resource: Pod = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "shop", uid: `uid-${name}` },
    spec: {
      containers: [],
      serviceAccountName: "web",
      ...(node !== undefined && { nodeName: node }),
    },
    status: { phase },
  } as unknown as Pod;
  return { type: "upsert", resource };
}

const gone = (name: string): ResourceEvent => ({
  type: "delete",
  key: { kind: "Pod", namespace: "shop", name },
});

describe("the pod directory", () => {
  it("follows pods from scheduling to deletion", () => {
    const pods = new PodDirectory();
    const onNode = (node: string) => [...pods.podsOnNode(node)].map(({ uid }) => uid);
    pods.apply(upsert("a", undefined));
    expect(pods.pod("shop", "a")).toMatchObject({ uid: "uid-a", serviceAccount: "web" });
    expect(onNode("")).toEqual([]);
    pods.apply(upsert("a", "node-1"));
    pods.apply(upsert("b", "node-1", "Failed"));
    expect(onNode("node-1")).toEqual(["uid-a", "uid-b"]);
    expect(pods.pod("shop", "b")?.failed).toBe(true);
    pods.apply(upsert("a", "node-2"));
    expect(onNode("node-1")).toEqual(["uid-b"]);
    pods.apply(gone("a"));
    pods.apply(gone("b"));
    expect([onNode("node-1"), onNode("node-2"), pods.pod("shop", "a")]).toEqual([
      [],
      [],
      undefined,
    ]);
  });
});
