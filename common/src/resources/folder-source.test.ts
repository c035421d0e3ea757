import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FolderSource } from "./folder-source.ts";
import { FolderStore } from "./folder-store.ts";
import { formatProblem, type ResourceEvent, type SourceProblem } from "./source.ts";

let folder: string;
let source: FolderSource | undefined;
const events: ResourceEvent[] = [];
let problems: readonly SourceProblem[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-source-"));
  events.length = 0;
  problems = [];
});

afterEach(() => {
  source?.close();
  rmSync(folder, { recursive: true, force: true });
});

const handler = {
  onEvents: (batch: readonly ResourceEvent[]) => void events.push(...batch),
  onProblems: (list: readonly SourceProblem[]) => void (problems = list),
};
const service = (name: string, port = 80) =>
  `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: shop}\nspec:\n  ports:\n    - {name: http, port: ${port}}\n`;
const seen = () =>
  events.map((event) =>
    event.type === "upsert" ? `+${event.resource.metadata.name}` : `-${event.key.name}`,
  );

async function start(): Promise<void> {
  source = new FolderSource([folder]);
  await source.start(handler);
}

describe("a manifest folder", () => {
  it("is read at the start and followed afterwards", async () => {
    writeFileSync(join(folder, "a.yaml"), `${service("a")}---\n${service("b")}`);
    await start();
    expect(seen()).toEqual(["+a", "+b"]);
    mkdirSync(join(folder, "below"));
    writeFileSync(join(folder, "below/c.yaml"), service("c"));
    await expect.poll(seen).toEqual(["+a", "+b", "+c"]);
    writeFileSync(join(folder, "a.yaml"), service("a", 81));
    await expect.poll(seen).toEqual(["+a", "+b", "+c", "-b", "+a"]);
    rmSync(join(folder, "below/c.yaml"));
    await expect.poll(seen).toContain("-c");
  });

  it("follows an editor that writes a draft and renames it", async () => {
    writeFileSync(join(folder, "a.yaml"), service("a"));
    await start();
    writeFileSync(join(folder, ".a.yaml.swp"), service("a", 82));
    renameSync(join(folder, ".a.yaml.swp"), join(folder, "a.yaml"));
    await expect.poll(seen).toEqual(["+a", "+a"]);
  });

  it("keeps the last good version of a broken file, and says file, line and field", async () => {
    writeFileSync(join(folder, "a.yaml"), service("a"));
    await start();
    writeFileSync(join(folder, "a.yaml"), service("a", 99_999));
    await expect.poll(() => problems.map(formatProblem)).toHaveLength(1);
    expect(formatProblem(problems[0]!)).toMatch(/a\.yaml:6: spec\.ports\[0\]\.port Too big/);
    expect(seen()).toEqual(["+a"]);
    writeFileSync(join(folder, "a.yaml"), service("a", 83));
    await expect.poll(() => problems).toEqual([]);
    expect(seen()).toEqual(["+a", "+a"]);
  });

  it("reports a resource that two files define, and keeps the first", async () => {
    writeFileSync(join(folder, "1.yaml"), service("a"));
    writeFileSync(join(folder, "2.yaml"), service("a", 81));
    await start();
    expect(seen()).toEqual(["+a"]);
    expect(problems[0]?.message).toContain("already defined");
  });

  it.each([
    ["an unknown kind", "kind: Gadget\n", 'kind "Gadget" is not known'],
    ["no kind", "metadata: {name: a}\n", "kind is missing"],
    ["bad YAML", "a: [1\n", "is not valid YAML"],
    [
      "an unknown field",
      "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {mtsl: {}}\n",
      "spec.mtsl is not a known field",
    ],
    [
      "a service port twice",
      "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: x, port: 1}, {name: y, port: 1}]}\n",
      "1/TCP is used twice",
    ],
    [
      "a namespace on a Namespace",
      "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n",
      "is not namespaced",
    ],
  ])("reports %s", async (_, text, message) => {
    writeFileSync(join(folder, "bad.yaml"), text);
    await start();
    expect(problems.map(formatProblem).join()).toContain(message);
    expect(seen()).toEqual([]);
  });

  it("fails at the start when it does not exist", () => {
    expect(() => new FolderSource([join(folder, "none")]).start(handler)).toThrow("does not exist");
  });
});

describe("the folder store", () => {
  const key = { kind: "Service", namespace: "shop", name: "a" } as const;
  const object = () => ({
    apiVersion: "v1" as const,
    kind: "Service" as const,
    metadata: { name: "a", namespace: "shop" },
    spec: { type: "ClusterIP" as const },
  });

  it("puts, gets, lists and deletes, with uid, time and version", async () => {
    const store = new FolderStore(folder);
    await store.put(object());
    const first = store.get(key);
    expect(first?.metadata).toMatchObject({ name: "a", resourceVersion: "1" });
    await store.put(object());
    expect(store.get(key)?.metadata).toMatchObject({
      uid: first?.metadata.uid,
      resourceVersion: "2",
    });
    expect(store.list("Service")).toHaveLength(1);
    expect([await store.delete(key), await store.delete(key)]).toEqual([true, false]);
  });

  it("loses no update of several writers at once", async () => {
    const stores = Array.from({ length: 4 }, () => new FolderStore(folder));
    await stores[0]!.put(object());
    const labels = Array.from({ length: 40 }, (_, i) => `label-${i}`);
    await Promise.all(
      labels.map((label, i) =>
        stores[i % 4]!.patch(key, (resource) => {
          resource.metadata.labels = { ...resource.metadata.labels, [label]: "x" };
          return resource;
        }),
      ),
    );
    expect(Object.keys(stores[0]!.get(key)?.metadata.labels ?? {})).toHaveLength(40);
  });

  it("takes over the lock of a crashed writer", async () => {
    const store = new FolderStore(folder);
    writeFileSync(join(folder, ".lock"), "");
    await store.put(object());
    expect(store.get(key)).toBeDefined();
  });
});
