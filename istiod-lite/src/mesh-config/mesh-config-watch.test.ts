import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FOLLOW_INTERVAL_MS } from "@ambit/common/process/file-follower.ts";
import { keyOf, type SourceProblem } from "@ambit/common/resources/source.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { objectYaml, parse } from "../testing/mesh-harness.ts";
import type { MeshConfig } from "./mesh-config.ts";
import { MeshConfigWatch } from "./mesh-config-watch.ts";

let folder: string;
let watched: MeshConfigWatch;
let seen: MeshConfig[];
let problems: readonly SourceProblem[];
let clock: FakeClock;

function watching(of: string | undefined): MeshConfigWatch {
  watched = new MeshConfigWatch({
    folder: of,
    namespace: "istio-system",
    name: "istio",
    clock,
    onChange: (config) => seen.push(config),
    onProblems: (now) => (problems = now),
  });
  return watched;
}

const configMap = (data: string, namespace = "istio-system", name = "istio") =>
  parse(
    objectYaml("ConfigMap", name, "{}", `namespace: ${namespace}`).replace(
      /---$/,
      `data: ${data}\n---`,
    ),
  ).map((resource) => ({ type: "upsert" as const, resource }));
const write = (key: string, text: string) => writeFileSync(join(folder, key), text);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mesh-config-"));
  seen = [];
  problems = [];
  clock = new FakeClock();
});
afterEach(() => {
  watched.close();
  rmSync(folder, { recursive: true });
});

describe("the mesh configuration", () => {
  it("is read from its folder, and followed there", async () => {
    write("mesh", "trustDomain: a.test");
    watching(folder).start();
    expect(seen).toMatchObject([{ trustDomain: "a.test" }]);
    write("mesh", "trustDomain: b.test");
    await clock.advance(FOLLOW_INTERVAL_MS);
    expect(watched.current.trustDomain).toBe("b.test");
    rmSync(join(folder, "mesh"));
    await clock.advance(FOLLOW_INTERVAL_MS);
    expect(watched.current.trustDomain).toBeUndefined();
    watched.close();
    expect(clock.pendingTimers).toBe(0);
  });

  it("that is broken at the start ends it with a sentence", () => {
    write("mesh", "trustDomain: 1");
    expect(() => watching(folder).start()).toThrow(
      `MESH_CONFIG_DIR ${folder}: key mesh: trustDomain`,
    );
    expect(() => watching(join(folder, "gone")).start()).toThrow("MESH_CONFIG_DIR");
  });

  it("that breaks later is reported, and the last good one holds until it is mended", async () => {
    write("mesh", "trustDomain: a.test");
    watching(folder).start();
    write("mesh", "trustDomain: {");
    await clock.advance(FOLLOW_INTERVAL_MS);
    expect(watched.current.trustDomain).toBe("a.test");
    expect(problems).toMatchObject([{ file: "ConfigMap istio-system/istio", line: 1 }]);
    write("mesh", "trustDomain: a.test");
    await clock.advance(FOLLOW_INTERVAL_MS);
    expect(problems).toEqual([]);
    expect(seen).toHaveLength(1);
  });

  it("is the ConfigMap's key by key, and the folder's again when that goes", () => {
    write("mesh", "trustDomain: a.test");
    write("ambit", "sameNode: hbone");
    watching(folder).start();
    const [event] = configMap('{ mesh: "trustDomain: b.test" }');
    watched.apply([event!]);
    expect(watched.current).toMatchObject({ trustDomain: "b.test", sameNode: "hbone" });
    watched.apply([{ type: "delete", key: keyOf(event!.resource) }]);
    expect(watched.current.trustDomain).toBe("a.test");
  });

  it("needs no folder", () => {
    watching(undefined).start();
    watched.apply(configMap('{ mesh: "rootNamespace: root" }'));
    expect(seen).toMatchObject([{ rootNamespace: "root" }]);
  });

  it.each([
    ["of another namespace", "shop", "istio"],
    ["of another name", "istio-system", "other"],
  ])("is not a ConfigMap %s", (_what, namespace, name) => {
    watching(undefined).apply(configMap('{ mesh: "trustDomain: b.test" }', namespace, name));
    expect(seen).toEqual([]);
  });
});
