import { describe, expect, it } from "vitest";
import { gateway, labelledService as service, use } from "../testing/gateway-yaml.ts";
import { MeshHarness as Harness, objectYaml, podYaml } from "../testing/mesh-harness.ts";

describe("policies that let only waypoints in", () => {
  const NAME = "shop/istio_allow_waypoint_shop_wp";
  const instance = podYaml("wp-1", "gateway.networking.k8s.io/gateway-name: wp").replace(
    "serviceAccountName: shop",
    "serviceAccountName: wp-account",
  );

  it("are not made unless asked for", () => {
    const mesh = new Harness().apply(gateway("wp"), instance, service(use("wp")), podYaml("a"));
    expect([mesh.policy(NAME), mesh.pod("a").authorizationPolicies]).toEqual([undefined, []]);
  });

  it("name the accounts of a waypoint's pods, for the workloads behind it", () => {
    const mesh = new Harness({ autoAllowWaypoints: true, trustDomain: "td" });
    mesh.apply(gateway("wp"), service(use("wp")), podYaml("a"), podYaml("bb", "app: b"));
    expect(mesh.pod("a").authorizationPolicies).toEqual([]);
    mesh.apply(instance);
    expect(mesh.policy(NAME)).toMatchObject({
      action: 0,
      scope: 2,
      rules: [
        {
          clauses: [
            {
              matches: [
                {
                  principals: [{ matchType: { case: "exact", value: "td/ns/shop/sa/wp-account" } }],
                },
              ],
            },
          ],
        },
      ],
    });
    expect(mesh.pod("a").authorizationPolicies).toEqual([NAME]);
    expect(mesh.pod("bb").authorizationPolicies).toEqual([]);
    expect(mesh.pod("wp-1").authorizationPolicies).toEqual([]);
    mesh.apply(service(""));
    expect(mesh.pod("a").authorizationPolicies).toEqual([]);
    mesh.apply(service(use("wp"))).remove(gateway("wp"));
    expect([mesh.policy(NAME), mesh.pod("a").authorizationPolicies]).toEqual([undefined, []]);
  });

  it("hold for the endpoints of a ServiceEntry, by its waypoint and by their own", () => {
    const all = gateway("wp", "shop", { labels: "istio.io/waypoint-for: all" });
    const entry = (labels: string, own: string) =>
      objectYaml(
        "ServiceEntry",
        "e",
        `{ hosts: [h.test], resolution: STATIC, endpoints: [{ address: 192.0.2.1, labels: { ${own} } }] }`,
        `namespace: shop, labels: { ${labels} }`,
      );
    const mesh = new Harness({ autoAllowWaypoints: true }).apply(all, instance, entry("", ""));
    const policies = () =>
      mesh.workload("networking.istio.io/ServiceEntry/shop/e/192.0.2.1").authorizationPolicies;
    const found = [policies()];
    found.push((mesh.apply(entry(use("wp"), "")), policies()));
    found.push((mesh.apply(entry("", use("wp"))), policies()));
    expect(found).toEqual([[], [NAME], [NAME]]);
  });

  it("hold for a workload's own waypoint too", () => {
    const all = gateway("wp", "shop", { labels: "istio.io/waypoint-for: all" });
    const mesh = new Harness({ autoAllowWaypoints: true });
    mesh.apply(all, instance, podYaml("a", use("wp")));
    expect(mesh.pod("a").authorizationPolicies).toEqual([NAME]);
  });
});
