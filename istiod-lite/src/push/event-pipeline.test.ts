import { describe, expect, it } from "vitest";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { parseMeshConfig } from "../mesh-config/mesh-config.ts";
import { objectYaml, parse, podYaml, SETTINGS } from "../testing/mesh-harness.ts";
import type { MeshSettings } from "../translate/settings.ts";
import { VipAllocator } from "../vips/vip-allocator.ts";
import { EventPipeline } from "./event-pipeline.ts";
import type { MeshPusher } from "./mesh-pusher.ts";
import { PodDirectory } from "./pod-directory.ts";

function setUp() {
  const seen: string[] = [];
  const configured: Partial<MeshSettings>[] = [];
  const problems: string[][] = [];
  const pusher = {
    configure: (changes: Partial<MeshSettings>) => void configured.push(changes),
    onEvents: (events: readonly ResourceEvent[]) => {
      for (const event of events)
        seen.push(
          event.type === "upsert" ? `+${keyText(keyOf(event.resource))}` : `-${keyText(event.key)}`,
        );
    },
    onProblems: (now: readonly { message: string }[]) =>
      void problems.push(now.map(({ message }) => message)),
  } as unknown as MeshPusher;
  const pods = new PodDirectory();
  const vips = new VipAllocator([], memoryLog().log.scope("vips"));
  const pipeline = new EventPipeline({ settings: SETTINGS, pods, vips, pusher });
  const upsert = (...yaml: string[]) =>
    pipeline.onEvents(parse(yaml.join("\n")).map((resource) => ({ type: "upsert", resource })));
  return { pipeline, pods, seen, configured, problems, upsert };
}

const ON = { mesh: "discoverySelectors: [{ matchLabels: { mesh: 'on' } }]" };
const namespace = (labels: string) =>
  objectYaml("Namespace", "shop", "{}", `labels: { ${labels} }`);

describe("events on their way to the model", () => {
  it("are left out with their namespace, for the node authorizer too", () => {
    const { pipeline, pods, seen, upsert } = setUp();
    upsert(namespace(""), podYaml("a"));
    expect(pods.pod("shop", "a")).toBeDefined();
    pipeline.configure(parseMeshConfig(ON));
    expect(pods.pod("shop", "a")).toBeUndefined();
    upsert(namespace("mesh: 'on'"));
    expect(pods.pod("shop", "a")).toBeDefined();
    pipeline.configure(parseMeshConfig({}));
    expect(seen).toEqual([
      "+Namespace//shop",
      "+Pod/shop/a",
      "-Pod/shop/a",
      "+Namespace//shop",
      "+Pod/shop/a",
    ]);
  });

  it("are seen first by who reads the mesh configuration among them", () => {
    const { pipeline, seen, upsert } = setUp();
    pipeline.configuredBy({ apply: (events) => seen.push(`${events.length} read`) });
    upsert(podYaml("a"));
    expect(seen).toEqual(["1 read", "+Pod/shop/a"]);
  });

  it("are translated by settings that fall back to the environment's", () => {
    const { pipeline, configured } = setUp();
    pipeline.configure(parseMeshConfig({ mesh: "trustDomain: td", ambit: "sameNode: hbone" }));
    expect([configured.at(-1), pipeline.trustDomain]).toMatchObject([
      { trustDomain: "td", rootNamespace: "istio-system", sameNode: "hbone" },
      "td",
    ]);
    pipeline.configure(parseMeshConfig({}));
    expect(configured.at(-1)).toMatchObject({ trustDomain: "cluster.local", sameNode: undefined });
  });

  it("come with the problems of their source and of the mesh configuration together", () => {
    const { pipeline, problems } = setUp();
    const problem = (message: string) => ({ file: "f", line: 1, field: "", message });
    pipeline.onProblems([problem("a")]);
    pipeline.onConfigProblems([problem("b")]);
    pipeline.onProblems([]);
    expect(problems).toEqual([["a"], ["a", "b"], ["b"]]);
  });
});
