import { describe, expect, it } from "vitest";
import {
  MeshHarness as Harness,
  objectYaml,
  policyYaml as policy,
  serviceYaml,
} from "../testing/mesh-harness.ts";

const peers = (spec: string, name = "p", metadata = "namespace: shop") =>
  objectYaml("PeerAuthentication", name, spec, metadata);
const gateway = (more = "status: { addresses: [{ type: IPAddress, value: 10.96.0.9 }] }") =>
  objectYaml(
    "Gateway",
    "wp",
    "{ gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }",
  ).replace(/---$/, `${more}\n---`);
const USED = serviceYaml("web").replace(
  "namespace: shop",
  "namespace: shop, labels: { istio.io/use-waypoint: wp }",
);

describe("a policy for ztunnels", () => {
  it.each([
    ["{ rules: [{}] }", "shop", "the ztunnels of every pod of namespace shop"],
    ["{ rules: [{}] }", "istio-system", "the ztunnels of every pod of the mesh"],
    [
      "{ selector: { matchLabels: { app: a, v: b } } }",
      "shop",
      "the ztunnels of pods with app=a, v=b of namespace shop",
    ],
    [
      "{ selector: { matchLabels: { app: a } } }",
      "istio-system",
      "the ztunnels of pods with app=a of the mesh",
    ],
  ])("as %s in %s is enforced at its place", (spec, namespace, where) => {
    const mesh = new Harness().apply(policy(spec, namespace));
    expect(mesh.statuses.get(`AuthorizationPolicy/${namespace}/p`)?.enforcement).toEqual({
      kind: "proxies",
      where,
      resource: `${namespace}/p`,
    });
  });

  it.each([
    ["{ action: AUDIT }", "ztunnel does not support the AUDIT action"],
    ["{ action: CUSTOM, provider: { name: x } }", "does not support the CUSTOM action"],
    ["{ action: DENY }", "a DENY policy without rules denies nothing"],
    [
      "{ action: DENY, rules: [{ to: [{ operation: { methods: [GET] } }] }] }",
      "found: methods). In ambient mode",
    ],
  ])("as %s is enforced by nobody, and says why", (spec, why) => {
    const { enforcement } = new Harness()
      .apply(policy(spec))
      .statuses.get("AuthorizationPolicy/shop/p")!;
    expect(enforcement).toEqual({ kind: "nobody", why: expect.stringContaining(why) as string });
  });

  it("is a dry run where those are sent, and nothing elsewhere", () => {
    const dry = policy("{ rules: [{}] }", "shop", "istio.io/dry-run: 'true'");
    const enforcement = (dryRunPolicies: boolean) =>
      new Harness({ dryRunPolicies }).apply(dry).statuses.get("AuthorizationPolicy/shop/p")
        ?.enforcement;
    expect(enforcement(false)).toMatchObject({ kind: "nobody" });
    expect(enforcement(true)).toMatchObject({
      where: expect.stringContaining("dry run") as string,
    });
  });
});

describe("a policy with targets", () => {
  const at = (...refs: string[]) => policy(`{ targetRefs: [${refs.join(", ")}] }`);
  const service = "{ kind: Service, group: '', name: web }";
  const verdict = (mesh: Harness) => {
    const [condition] = mesh.statuses.get("AuthorizationPolicy/shop/p")!.conditions;
    return [condition?.status, condition?.reason, condition?.message];
  };
  const ready = gateway();

  it.each([
    [
      "a service with a waypoint",
      at(service),
      [USED, ready],
      "True",
      "Accepted",
      "bound to shop/wp",
    ],
    [
      "a service whose waypoint is not ready",
      at(service),
      [USED],
      "False",
      "AncestorNotBound",
      "waypoint shop/wp",
    ],
    [
      "a service without waypoint",
      at(service),
      [serviceYaml("web")],
      "False",
      "AncestorNotBound",
      "label it",
    ],
    ["no service", at(service), [], "False", "TargetNotFound", "Service web does not exist"],
    [
      "a Gateway",
      at("{ kind: Gateway, group: gateway.networking.k8s.io, name: wp }"),
      [ready],
      "True",
      "Accepted",
      "bound to shop/wp",
    ],
    [
      "a Gateway that is not ready",
      at("{ kind: Gateway, group: gateway.networking.k8s.io, name: wp }"),
      [gateway("")],
      "False",
      "AncestorNotBound",
      "no address",
    ],
    [
      "a ServiceEntry that is not there",
      at("{ kind: ServiceEntry, group: networking.istio.io, name: e }"),
      [],
      "False",
      "TargetNotFound",
      "ServiceEntry e",
    ],
    [
      "a class outside the root namespace",
      at("{ kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint }"),
      [],
      "False",
      "Invalid",
      "istio-system only",
    ],
    ["a pod", at("{ kind: Pod, name: a }"), [], "False", "Invalid", "can be no target"],
    [
      "a service of another namespace",
      at("{ kind: Service, name: web, namespace: other }"),
      [USED, ready],
      "False",
      "Invalid",
      "another namespace",
    ],
    [
      "one of two",
      at(service, "{ kind: Service, name: gone }"),
      [USED, ready],
      "True",
      "PartiallyInvalid",
      "bound to shop/wp; Service gone does not exist",
    ],
  ])("for %s is sent to no ztunnel", (_what, yaml, others, status, reason, message) => {
    const mesh = new Harness().apply(yaml, ...others);
    expect(verdict(mesh)).toEqual([status, reason, expect.stringContaining(message) as string]);
    expect(mesh.policy("shop/p")).toBeUndefined();
    const enforced = mesh.statuses.get("AuthorizationPolicy/shop/p")?.enforcement?.kind;
    expect(enforced).toBe(status === "True" ? undefined : "nobody");
  });

  it("may be for a class of Gateways in the root namespace", () => {
    const kind = objectYaml("GatewayClass", "istio-waypoint", "{ controllerName: c }", "");
    const spec =
      "{ targetRef: { kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint } }";
    const mesh = new Harness().apply(policy(spec, "istio-system"), kind);
    expect(mesh.statuses.get("AuthorizationPolicy/istio-system/p")?.conditions[0]).toMatchObject({
      status: "True",
      message: "bound to every Gateway of class istio-waypoint",
    });
  });

  it("follows its target and the target's waypoint", () => {
    const mesh = new Harness().apply(at(service));
    const reasons = [verdict(mesh)[1]];
    for (const step of [USED, ready]) reasons.push(verdict(mesh.apply(step))[1]);
    for (const step of [ready, USED]) reasons.push(verdict(mesh.remove(step))[1]);
    expect(reasons).toEqual([
      "TargetNotFound",
      "AncestorNotBound",
      "Accepted",
      "AncestorNotBound",
      "TargetNotFound",
    ]);
  });
});

describe("a PeerAuthentication", () => {
  const enforcement = (mesh: Harness, key = "PeerAuthentication/shop/p") =>
    mesh.statuses.get(key)?.enforcement;

  it("is enforced at the pods it is for, as the policy it became if it became one", () => {
    const spec =
      "{ selector: { matchLabels: { app: a } }, portLevelMtls: { '80': { mode: STRICT } } }";
    expect(enforcement(new Harness().apply(peers(spec)))).toEqual({
      kind: "proxies",
      where: "the ztunnels of pods with app=a of namespace shop",
      resource: "shop/converted_peer_authentication_p",
    });
  });

  it.each([
    ["{ mtls: { mode: DISABLE } }", "DISABLE is as PERMISSIVE"],
    ["{ portLevelMtls: { '80': { mode: STRICT } } }", "its ports are not heeded"],
  ])("as %s says what is not as it looks", (spec, remark) => {
    expect(enforcement(new Harness().apply(peers(spec)))).toMatchObject({
      where: expect.stringContaining(remark) as string,
    });
  });

  it("has no effect with a selector in the root namespace", () => {
    const spec = "{ selector: { matchLabels: { app: a } }, mtls: { mode: STRICT } }";
    const mesh = new Harness().apply(peers(spec, "p", "namespace: istio-system"));
    expect(enforcement(mesh, "PeerAuthentication/istio-system/p")).toMatchObject({
      kind: "nobody",
    });
  });

  it("has no effect while an older one is there", () => {
    const at = (day: number) => `namespace: shop, creationTimestamp: "2026-01-0${day}"`;
    const mesh = new Harness().apply(peers("{}", "p", at(2)));
    expect(enforcement(mesh)?.kind).toBe("proxies");
    mesh.apply(peers("{}", "old", at(1)));
    expect(enforcement(mesh)).toEqual({
      kind: "nobody",
      why: expect.stringContaining("old is older and counts instead") as string,
    });
    mesh.remove(peers("{}", "old", at(1)));
    expect(enforcement(mesh)?.kind).toBe("proxies");
  });
});
