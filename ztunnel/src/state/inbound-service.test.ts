import { describe, expect, it } from "vitest";
import { inboundService } from "./inbound-service.ts";
import { TestMesh } from "./testing-mesh.ts";

const host = (name: string) => `${name}.ns.svc.cluster.local`;
const ports = (servicePort: number, targetPort: number) => ({
  ports: [{ servicePort, targetPort }],
});

/** The pod belongs to `web` (80 → 8080), `named` (80 → 9090 by name) and `gone`, not to `other`. */
const mesh = () =>
  new TestMesh()
    .service("web", ["10.96.0.1"], ports(80, 8080))
    .service("named", ["10.96.0.2"], ports(80, 0))
    .service("other", ["10.96.0.3"], ports(80, 7070))
    .workload("pod", ["10.0.0.1"], {
      services: {
        [`ns/${host("web")}`]: ports(80, 8080),
        [`ns/${host("named")}`]: ports(80, 9090),
        [`ns/${host("gone")}`]: ports(80, 6060),
      },
    });

describe("the service that an inbound connection was meant for", () => {
  it.each<[string, number, string | undefined, string | undefined]>([
    ["named, and the pod belongs to it", 1, "web", "web"],
    ["named, though the port is another's", 9090, "web", "web"],
    ["named, but the pod does not belong to it", 1, "other", undefined],
    ["named, but unknown; its port tells", 8080, "ghost", "web"],
    ["the one whose target port it is", 8080, undefined, "web"],
    ["the one for which the endpoint maps the port", 9090, undefined, "named"],
    ["none, when the port is another service's", 7070, undefined, undefined],
    ["none, when the service is not known (any more)", 6060, "gone", undefined],
  ])("is %s", (_, port, named, expected) => {
    const { state } = mesh();
    const service = inboundService(state, mesh().get("pod"), port, named && host(named));
    expect(service?.name).toBe(expected);
  });
});
