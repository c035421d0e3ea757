import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import type { ExtensionSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { sameNodePath } from "./same-node.ts";

const extension = (value: string, name = "ambit.io/same-node") => ({
  name,
  config: anyPack(StringValueSchema, create(StringValueSchema, { value })),
});

/** The workload as xDS describes it, with its extensions. */
function workload(...extensions: MessageInitShape<typeof ExtensionSchema>[]) {
  return new TestMesh().workload("a", ["10.0.0.1"], { extensions }).get("a");
}

describe("the path between two pods of one node", () => {
  it.each([
    ["local", undefined, undefined, "local"],
    ["hbone", undefined, undefined, "hbone"],
    ["local", "hbone", undefined, "hbone"],
    ["local", undefined, "hbone", "hbone"],
    ["hbone", "local", undefined, "hbone"],
    ["hbone", "local", "local", "local"],
    ["hbone", "direct", "local", "local"],
    ["local", "direct", "direct", "direct"],
    ["direct", undefined, undefined, "direct"],
    ["direct", "direct", "hbone", "hbone"],
    ["local", "direct", undefined, "local"],
    ["local", "local", "hbone", "hbone"],
    ["hbone", "magic", "local", "hbone"],
  ] as const)(
    "where %s is usual, the source says %s and the destination %s, is %s",
    (usual, source, destination, expected) => {
      const says = (word: string | undefined) =>
        word === undefined ? workload() : workload(extension(word));
      expect(sameNodePath(usual, says(source), says(destination))).toBe(expected);
    },
  );

  it("is a tunnel to an application that is called by another port, or with a PROXY header", () => {
    const tunnelled = new TestMesh()
      .workload("a", ["10.0.0.1"], { applicationTunnel: { port: 15_088 } })
      .get("a");
    expect(sameNodePath("local", workload(), tunnelled)).toBe("hbone");
  });

  it("does not heed extensions of other names, or without content", () => {
    const other = workload(extension("hbone", "other"), { name: "ambit.io/same-node" });
    expect(other.sameNode).toBeUndefined();
  });
});
