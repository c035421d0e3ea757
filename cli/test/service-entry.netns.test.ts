// Hosts and workloads that users declare, in a mesh as users run it: names answered by ztunnels' DNS with
// virtual addresses, endpoints inside and outside the mesh.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

const lab = new Lab();

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

const entry = (spec: string) => `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: api, namespace: shop }
spec: { hosts: [api.test], ports: [{ number: 80, name: web, protocol: HTTP, targetPort: 8080 }], ${spec} }
`;
const get = (url = "http://api.test/") => lab.get("client.shop", url);

describe("a ServiceEntry", () => {
  it("has the pods it selects as endpoints, under an address of its own", () =>
    lab.whileApplied(
      entry("resolution: STATIC, workloadSelector: { labels: { app: far } }"),
      async () => {
        await expect.poll(() => get(), SOON).toContain("far sees");
        const text = await lab.must(
          "local",
          "get",
          "serviceentry",
          "api",
          "-n",
          "shop",
          "-o",
          "json",
        );
        expect(text).toMatch(/"value": "240\.240\./);
        const seen = await lab.exec("client.shop", "getent", "ahostsv4", "api.test");
        expect(seen).toMatch(/^240\.240\./);
      },
    ));

  it("has the endpoints it lists, outside the mesh too", async () => {
    const ip = await lab.ipOf("legacy");
    await lab.whileApplied(
      entry(`resolution: STATIC, endpoints: [{ address: ${ip} }]`),
      async () => {
        await expect.poll(() => get(), SOON).toContain("legacy sees");
      },
    );
    await expect.poll(() => get(), SOON).toMatch(/^exit/);
  });

  it("keeps its own addresses when its author gives them", () =>
    lab.whileApplied(
      entry(
        "addresses: [10.250.0.1], resolution: STATIC, workloadSelector: { labels: { app: far } }",
      ),
      async () => {
        await expect.poll(() => get("http://10.250.0.1/"), SOON).toContain("far sees");
      },
    ));

  it("without resolution lets traffic through to where it was going", async () => {
    const ip = await lab.ipOf("legacy");
    await lab.whileApplied(entry(`addresses: [${ip}], resolution: NONE`), async () => {
      await expect.poll(() => get(`http://${ip}:8080/`), SOON).toContain("legacy sees");
    });
  });
});

describe("a WorkloadEntry", () => {
  it("is an endpoint of the Service that selects it", async () => {
    const ip = await lab.ipOf("legacy");
    const yaml = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: vm, namespace: shop }
spec: { address: ${ip}, labels: { app: vm }, ports: { web: 8080 } }
---
apiVersion: v1
kind: Service
metadata: { name: vm, namespace: shop }
spec: { selector: { app: vm }, ports: [{ name: http, port: 80, targetPort: web }] }
`;
    await lab.whileApplied(yaml, async () => {
      await expect.poll(() => get("http://vm.shop/"), SOON).toContain("legacy sees");
    });
  });
});
