import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { FolderStore } from "./folder-store.ts";
import { keyOf } from "./source.ts";
import { parseManifest } from "./yaml-file.ts";

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "folder-store-"))));
afterEach(() => rmSync(folder, { recursive: true }));

const policy = (action: string): Resource =>
  parseManifest(
    `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: shop }
spec: { action: ${action} }`,
    "test.yaml",
  ).resources[0]!;

describe("the store", () => {
  it("counts in an object's generation what users change, not what is written to status or metadata", async () => {
    const store = new FolderStore(folder);
    const key = keyOf(policy("ALLOW"));
    const stamps = () => {
      const { generation, resourceVersion } = store.get(key)!.metadata;
      return [generation, resourceVersion];
    };
    await store.put(policy("ALLOW"));
    expect(stamps()).toEqual([1, "1"]);
    await store.patch(key, (object) => ({ ...object, status: { conditions: [] } }));
    await store.patch(key, ({ metadata, ...rest }) => {
      return { ...rest, metadata: { ...metadata, labels: { a: "b" } } };
    });
    expect(stamps()).toEqual([1, "3"]);
    await store.put(policy("DENY"));
    expect(stamps()).toEqual([2, "4"]);
    expect(store.get(key)).toMatchObject({ status: { conditions: [] } });
  });
});
