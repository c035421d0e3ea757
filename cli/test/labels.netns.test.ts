import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, SOON } from "./lab.ts";
import { pod, SHOP } from "./shop.ts";

const lab = new Lab();
const MODE = "istio.io/dataplane-mode";

beforeAll(() => lab.up(SHOP + pod("shared", { node: "node-1", spec: "hostNetwork: true" })));
afterAll(() => lab.down());

const meshOf = async (name: string) => (await lab.pod(name)).mesh;
const label = (...args: string[]) => lab.must("local", "label", ...args);
/** The pod's namespace and first process: what must stay when a pod joins or leaves. */
const touched = (name: string) => lab.exec(name, "sh", "-c", "readlink /proc/self/ns/net");

async function expectMode(name: string, mode: "enrolled" | "not enrolled"): Promise<void> {
  const poll = expect.poll(() => meshOf(name), SOON);
  await (mode === "enrolled" ? poll.toBe("enrolled") : poll.not.toBe("enrolled"));
}

describe("labels at run time", () => {
  it("decide first by the pod's, then by the namespace's", async () => {
    for (const name of ["client", "near", "far"]) expect(await meshOf(name)).toBe("enrolled");
    for (const name of ["legacy", "optout"]) expect(await meshOf(name)).not.toBe("enrolled");
  });

  it("never enrol a pod on the host's network", async () => {
    expect(await meshOf("shared")).not.toBe("enrolled");
    await label("pod", "shared", "-n", "shop", `${MODE}=ambient`);
    await expectMode("shared", "not enrolled");
  });

  it("of a namespace take effect within a second, without touching the pod", async () => {
    const before = await touched("legacy.outside");
    await label("namespace", "outside", `${MODE}=ambient`);
    await expectMode("legacy", "enrolled");
    expect(await lab.get("client.shop", "http://legacy.outside/")).toContain("legacy sees");
    await label("namespace", "outside", `${MODE}-`);
    await expectMode("legacy", "not enrolled");
    expect(await lab.get("client.shop", "http://legacy.outside/")).toContain("legacy sees");
    expect(await touched("legacy.outside")).toBe(before);
  });

  it("of a pod beat those of its namespace, both ways", async () => {
    await label("pod", "optout", "-n", "shop", `${MODE}=ambient`);
    await expectMode("optout", "enrolled");
    await label("pod", "optout", "-n", "shop", `${MODE}=none`);
    await expectMode("optout", "not enrolled");
    await label("pod", "optout", "-n", "shop", `${MODE}-`);
    await expectMode("optout", "enrolled");
  });
});
