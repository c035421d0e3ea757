import { describe, expect, it } from "vitest";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import { objectYaml, parse, podYaml } from "../testing/mesh-harness.ts";
import { NamespaceFilter } from "./namespace-filter.ts";

const upserts = (...yaml: string[]): ResourceEvent[] =>
  parse(yaml.join("\n")).map((resource) => ({ type: "upsert", resource }));
const namespace = (name: string, labels = "") =>
  objectYaml("Namespace", name, "{}", `labels: { ${labels} }`);
const told = (events: readonly ResourceEvent[]) =>
  events.map((event) =>
    event.type === "upsert" ? `+${keyText(keyOf(event.resource))}` : `-${keyText(event.key)}`,
  );
const ON = [{ matchLabels: { mesh: "on" } }];

describe("namespaces that discoverySelectors leave out", () => {
  it("are none without selectors", () => {
    const filter = new NamespaceFilter("istio-system");
    expect(told(filter.apply(upserts(podYaml("a"))))).toEqual(["+Pod/shop/a"]);
  });

  it("are hidden with what is in them, until a label says otherwise", () => {
    const filter = new NamespaceFilter("istio-system");
    filter.select(ON);
    expect(told(filter.apply(upserts(namespace("shop"), podYaml("a"))))).toEqual([
      "+Namespace//shop",
    ]);
    expect(told(filter.apply(upserts(namespace("shop", "mesh: 'on'"))))).toEqual([
      "+Namespace//shop",
      "+Pod/shop/a",
    ]);
    expect(told(filter.apply(upserts(podYaml("bb"))))).toEqual(["+Pod/shop/bb"]);
    expect(told(filter.apply(upserts(namespace("shop"))))).toEqual([
      "+Namespace//shop",
      "-Pod/shop/a",
      "-Pod/shop/bb",
    ]);
  });

  it("come and go with the selectors", () => {
    const filter = new NamespaceFilter("istio-system");
    filter.apply(upserts(namespace("shop"), podYaml("a")));
    expect(told(filter.select(ON))).toEqual(["-Pod/shop/a"]);
    expect(told(filter.select(ON))).toEqual([]);
    expect(told(filter.select([{}]))).toEqual(["+Pod/shop/a"]);
    expect(told(filter.select([]))).toEqual([]);
  });

  it("do not come back with what was deleted meanwhile", () => {
    const filter = new NamespaceFilter("istio-system");
    filter.select(ON);
    filter.apply(upserts(podYaml("a")));
    const [pod] = parse(podYaml("a"));
    expect(told(filter.apply([{ type: "delete", key: keyOf(pod!) }]))).toEqual([]);
    expect(told(filter.apply(upserts(namespace("shop", "mesh: 'on'"))))).toEqual([
      "+Namespace//shop",
    ]);
  });

  it("are hidden when they are deleted as Namespaces", () => {
    const filter = new NamespaceFilter("istio-system");
    filter.select(ON);
    const shop = upserts(namespace("shop", "mesh: 'on'"));
    filter.apply([...shop, ...upserts(podYaml("a"))]);
    const key = { kind: "Namespace", namespace: "", name: "shop" } as const;
    expect(told(filter.apply([{ type: "delete", key }]))).toEqual([
      "-Namespace//shop",
      "-Pod/shop/a",
    ]);
  });

  it("are never the mesh's own, nor what has no namespace", () => {
    const filter = new NamespaceFilter("istio-system");
    filter.select(ON);
    const own = podYaml("ztunnel").replace("namespace: shop", "namespace: istio-system");
    const node = objectYaml("Node", "n", "{}", "");
    expect(told(filter.apply(upserts(own, node)))).toEqual([
      "+Pod/istio-system/ztunnel",
      "+Node//n",
    ]);
  });
});
