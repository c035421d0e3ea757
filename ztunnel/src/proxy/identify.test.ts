import { describe, expect, it } from "vitest";
import { TestMesh } from "../state/testing-mesh.ts";
import { testContext, testPod } from "../testing/test-context.ts";
import { identify, knownWorkload } from "./identify.ts";

const WEB = { name: "web", namespace: "ns", serviceAccount: "web" };

function setUp(mesh = new TestMesh(), nodeName: string | undefined = "node-1") {
  const context = testContext({ state: mesh.state, config: { nodeName } });
  return { mesh, context, pod: testPod(context, WEB) };
}

describe("a pod is the workload", () => {
  it("of its name, namespace and service account on this node", async () => {
    const { mesh, context, pod } = setUp(new TestMesh().workload("web", ["10.0.0.1"]));
    expect(await identify(context, pod)).toBe(mesh.get("web"));
  });

  it.each([
    ["another name", { name: "other" }],
    ["another namespace", { namespace: "far" }],
    ["another service account", { serviceAccount: "other" }],
    ["another node", { node: "node-2" }],
  ])("and no workload of %s", (_, changes) => {
    const mesh = new TestMesh().workload("web", ["10.0.0.1"], changes);
    const { context, pod } = setUp(mesh);
    expect(knownWorkload(context, pod)).toBeUndefined();
  });

  it("of any node when we do not know ours", () => {
    const mesh = new TestMesh().workload("web", ["10.0.0.1"], { node: "node-2" });
    const context = testContext({ state: mesh.state });
    const anywhere = { ...context, config: { ...context.config, nodeName: undefined } };
    expect(knownWorkload(anywhere, testPod(context, WEB))).toBe(mesh.get("web"));
  });

  it("as it is now: what was remembered ends with the next change", () => {
    const { mesh, context, pod } = setUp(new TestMesh().workload("web", ["10.0.0.1"]));
    const before = knownWorkload(context, pod);
    expect(knownWorkload(context, pod)).toBe(before);
    mesh.workload("web", ["10.0.0.2"]);
    expect(knownWorkload(context, pod)?.addresses).toEqual(["10.0.0.2"]);
    mesh.remove("c//Pod/ns/web");
    expect(knownWorkload(context, pod)).toBeUndefined();
  });
});

describe("a pod that the control plane has not told of yet", () => {
  it("is waited for, and served at once when it comes", async () => {
    const { mesh, context, pod } = setUp();
    const identified = identify(context, pod);
    await context.clock.advance(4_999);
    mesh.workload("other", ["10.0.0.9"]);
    mesh.workload("web", ["10.0.0.1"]);
    expect(await identified).toBe(mesh.get("web"));
    expect(context.clock.pendingTimers).toBe(0);
  });

  it("is refused after five seconds, with the pod's name", async () => {
    const { mesh, context, pod } = setUp();
    const identified = identify(context, pod);
    const refused = expect(identified).rejects.toMatchObject({
      code: "UNKNOWN_SOURCE",
      message: "pod ns/web is not known to the control plane (waited 5 s)",
    });
    await context.clock.advance(5_000);
    await refused;
    mesh.workload("web", ["10.0.0.1"]);
    expect(await identify(context, pod)).toBe(mesh.get("web"));
  });
});
