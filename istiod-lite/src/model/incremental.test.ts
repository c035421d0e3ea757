// Whatever the order of events, the model must end where a rebuild from scratch ends: what an event marks
// too little of would stay stale for ever.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keyOf, keyText, type ResourceEvent } from "@ambit/common/resources/source.ts";
import { parseMeshConfig } from "../mesh-config/mesh-config.ts";
import {
  MeshHarness as Harness,
  objectYaml,
  parse,
  peerAuthenticationYaml as peerAuthentication,
  podYaml as pod,
  policyYaml as policy,
  serviceYaml as service,
} from "../testing/mesh-harness.ts";
import type { MeshSettings } from "../translate/settings.ts";

const USE = "labels: { istio.io/use-waypoint: wp }";
const gateway = (name: string, labels: string, annotations = "") =>
  objectYaml(
    "Gateway",
    name,
    "{ gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE, allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { admitted: 'yes' } } } } }] }",
    `namespace: shop, labels: { ${labels} }, annotations: { ${annotations} }`,
  ).replace(
    /---$/,
    `status: { addresses: [{ type: IPAddress, value: 10.96.0.${name.length} }] }\n---`,
  );
const namespace = (labels: string) =>
  objectYaml("Namespace", "shop", "{}", `labels: { ${labels} }`);

describe("incremental translation", () => {
  const slice = (podName: string) => `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, namespace: shop, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints: [{ addresses: [10.1.1.1] }, { addresses: [10.0.0.1], targetRef: { kind: Pod, name: ${podName} } }]
`;
  const choices = [
    pod("a"),
    pod("a", "app: b"),
    pod("bb"),
    pod("bb").replace("enabled", "pending"),
    service("web"),
    service("web", "selector: { app: b }"),
    service("api").replace("targetPort: web", "targetPort: 9"),
    peerAuthentication("shop", "{ mtls: { mode: STRICT } }"),
    peerAuthentication("istio-system", "{ mtls: { mode: STRICT } }"),
    peerAuthentication(
      "shop",
      '{ selector: { matchLabels: { app: a } }, portLevelMtls: { "8080": { mode: PERMISSIVE } } }',
      "w",
    ),
    policy("{ selector: { matchLabels: { app: a } } }"),
    policy("{ selector: {}, action: DENY }"),
    "apiVersion: v1\nkind: Node\nmetadata: { name: node-1, labels: { topology.kubernetes.io/region: r } }\n",
    "apiVersion: v1\nkind: Namespace\nmetadata: { name: shop, annotations: { networking.istio.io/traffic-distribution: PreferClose } }\n",
    "apiVersion: v1\nkind: Namespace\nmetadata: { name: istio-system, labels: { topology.istio.io/network: n } }\n",
    service("web").replace(", selector: { app: a }", ""),
    slice("a"),
    slice("bb"),
    objectYaml(
      "ServiceEntry",
      "one",
      "{ hosts: [h.test], resolution: STATIC, workloadSelector: { labels: { app: a } }, ports: [{ number: 80, name: http }] }",
    ),
    objectYaml(
      "ServiceEntry",
      "one",
      "{ hosts: [h.test, i.test], resolution: DNS, ports: [{ number: 80, name: http }] }",
    ),
    objectYaml(
      "ServiceEntry",
      "two",
      "{ hosts: [h.test], resolution: STATIC, endpoints: [{ address: 1.1.1.1 }] }",
    ),
    objectYaml(
      "ServiceEntry",
      "web",
      "{ hosts: [web.shop.svc.cluster.local], resolution: DNS }",
      "namespace: other",
    ),
    objectYaml("WorkloadEntry", "w", "{ address: 1.2.3.4, labels: { app: a } }"),
    objectYaml(
      "WorkloadEntry",
      "w",
      "{ address: 1.2.3.4, network: far }",
      `namespace: shop, ${USE}`,
    ),
    pod("a", "app: a, istio.io/use-waypoint: wp"),
    pod("bb", "app: a, gateway.networking.k8s.io/gateway-name: wp"),
    service("web").replace("namespace: shop", `namespace: shop, ${USE}`),
    objectYaml(
      "ServiceEntry",
      "one",
      "{ hosts: [h.test], resolution: STATIC, endpoints: [{ address: 1.1.1.1, network: far, labels: { istio.io/use-waypoint: wp } }] }",
    ),
    gateway("wp", "istio.io/waypoint-for: all").replace("from: Selector", "from: Same"),
    gateway("wp", ""),
    gateway("wp", "", "ambient.istio.io/waypoint-inbound-binding: PROXY"),
    gateway("next", "").replace("from: Selector", "from: All"),
    gateway("gw", "topology.istio.io/network: far").replace("istio-waypoint", "istio-remote"),
    objectYaml(
      "GatewayClass",
      "istio-waypoint",
      "{ controllerName: c }",
      "labels: { istio.io/waypoint-for: workload }",
    ),
    namespace("istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next"),
    namespace("ambit.io/same-node: hbone, admitted: 'yes'"),
  ];
  const visibility = (text: string) =>
    parseMeshConfig({ mesh: `serviceEntryVisibility: ${text}` }).serviceEntryVisibility;
  const settings: readonly Partial<MeshSettings>[] = [
    { rootNamespace: "shop" },
    { rootNamespace: "istio-system" },
    { trustDomain: "other.test" },
    { autoAllowWaypoints: true },
    { autoAllowWaypoints: false },
    { sameNode: "direct" },
    { serviceEntryVisibility: visibility("{ defaultVisibility: NONE }") },
    {
      serviceEntryVisibility: visibility(
        "{ policies: [{ visibility: NAMESPACE, matchingRules: [{ namespaceSelector: { matchLabels: { admitted: 'yes' } } }] }] }",
      ),
    },
  ];

  it("ends where a rebuild from scratch ends, whatever the order of events", () => {
    const step = fc.record({
      choice: fc.nat(choices.length + settings.length - 1),
      remove: fc.boolean(),
      flush: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const mesh = new Harness();
        const last = new Map<string, ResourceEvent>();
        let changed: Partial<MeshSettings> = {};
        for (const { choice, remove, flush } of steps) {
          const configured = settings[choice - choices.length];
          if (configured !== undefined) {
            changed = { ...changed, ...configured };
            mesh.model.configure(configured);
            if (flush) mesh.events([]);
            continue;
          }
          const resources = parse(choices[choice]!);
          const events = resources.map((resource): ResourceEvent =>
            remove ? { type: "delete", key: keyOf(resource) } : { type: "upsert", resource },
          );
          if (flush) mesh.events(events);
          else for (const event of events) mesh.model.apply(event);
          resources.forEach((resource, i) => last.set(keyText(keyOf(resource)), events[i]!));
        }
        mesh.events([]);
        const scratch = new Harness().configure(changed).events([...last.values()]);
        expect(mesh.snapshot()).toEqual(scratch.snapshot());
        for (const [key, status] of scratch.statuses) {
          expect(mesh.statuses.get(key), key).toEqual(status);
        }
      }),
      { numRuns: 500 },
    );
  });
});
