import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "@ambit/common/process/clock.ts";
import { keyOf, type SourceProblem } from "@ambit/common/resources/source.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { objectYaml, parse } from "../testing/mesh-harness.ts";
import type { MeshConfig } from "./mesh-config.ts";
import { MeshConfigWatch } from "./mesh-config-watch.ts";

let folder: string;
let watched: MeshConfigWatch;
let seen: MeshConfig[];
let problems: readonly SourceProblem[];
let changed: PromiseWithResolvers<void>;

function watching(of: string | undefined): MeshConfigWatch {
  watched = new MeshConfigWatch({
    folder: of,
    namespace: "istio-system",
    name: "istio",
    clock: systemClock,
    log: memoryLog().log.scope("mesh-config"),
    onChange: (config) => (seen.push(config), changed.resolve()),
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
  changed = Promise.withResolvers();
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
    changed = Promise.withResolvers();
    write("mesh", "trustDomain: b.test");
    await changed.promise;
    expect(watched.current.trustDomain).toBe("b.test");
  });

  it("that is broken at the start ends it with a sentence", () => {
    write("mesh", "trustDomain: 1");
    expect(() => watching(folder).start()).toThrow(
      `MESH_CONFIG_DIR ${folder}: key mesh: trustDomain`,
    );
    expect(() => watching(join(folder, "gone")).start()).toThrow("MESH_CONFIG_DIR");
  });

  it("that breaks later is reported, and the last good one holds until it is mended", () => {
    write("mesh", "trustDomain: a.test");
    watching(folder).start();
    write("mesh", "trustDomain: {");
    watched.reload();
    expect(watched.current.trustDomain).toBe("a.test");
    expect(problems).toMatchObject([{ file: "ConfigMap istio-system/istio", line: 1 }]);
    write("mesh", "trustDomain: a.test");
    watched.reload();
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
