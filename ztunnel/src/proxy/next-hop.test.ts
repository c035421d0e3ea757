import { describe, expect, it } from "vitest";
import { bytes, TestMesh } from "../state/testing-mesh.ts";
import { HbonePeer, refuse, relayTo, type Script } from "../testing/hbone-peer.ts";
import { CLIENT_IP, OutboundLab, portOf } from "../testing/outbound-lab.ts";

const VIP = "127.0.0.2";
const WAYPOINT_IP = "127.0.0.3";
const GATEWAY_IP = "127.0.0.4";
const HOSTNAME = "web.ns.svc.cluster.local";
const SAN = "spiffe://cluster.local/ns/ns/sa/web";

const byAddress = (ip: string, port: number) => ({
  destination: { case: "address" as const, value: { address: bytes(ip) } },
  hboneMtlsPort: port,
});
const byHostname = (hostname: string, port: number) => ({
  destination: { case: "hostname" as const, value: { namespace: "ns", hostname } },
  hboneMtlsPort: port,
});

const mesh = () =>
  new TestMesh().workload("client", [CLIENT_IP]).workload("waypoint", [WAYPOINT_IP]);

describe("a service with a waypoint", () => {
  async function setUp(script: (echo: number) => Script, issuedTo = "waypoint") {
    const known = mesh().workload("other", ["10.0.0.7"]);
    const lab = new OutboundLab(known);
    const [destination, echo] = [await lab.destination(VIP), await lab.echo("127.0.0.1")];
    const certificate = lab.certificate(issuedTo);
    const peer = await HbonePeer.listen(WAYPOINT_IP, certificate, script(portOf(echo)));
    known.service("web", [VIP], {
      ports: [{ servicePort: portOf(destination), targetPort: 80 }],
      waypoint: byAddress(WAYPOINT_IP, peer.port),
    });
    return { lab, destination, peer };
  }

  it("is reached through it, with the dialed VIP as authority and who asks in the headers", async () => {
    const { lab, destination, peer } = await setUp((port) => relayTo(port, "127.0.0.1"));
    expect(await lab.talk(destination, "hello")).toBe("hello");
    const [request] = peer.requests;
    expect(request).toMatchObject({
      authority: `${VIP}:${portOf(destination)}`,
      peer: lab.identity("client"),
    });
    expect(request?.headers["forwarded"]).toMatch(
      new RegExp(`^for="127\\.0\\.0\\.1:\\d+";host=${HOSTNAME}$`),
    );
    expect(request?.headers).not.toHaveProperty("x-forwarded-network");
    const [line] = lab.lines();
    expect(line).toMatchObject({
      "dst.hbone_addr": `${VIP}:${portOf(destination)}`,
      "dst.workload": "waypoint",
      "dst.service": HOSTNAME,
      "src.identity": lab.identity("client"),
      "dst.identity": lab.identity("waypoint"),
      path: "hbone",
    });
    expect(request?.headers["traceparent"]).toContain(String(line?.["id"]));
    lab[Symbol.dispose]();
    peer[Symbol.dispose]();
  });

  it.each([
    [401, "TUNNEL_UNAUTHORIZED"],
    [503, "TUNNEL_REFUSED"],
  ])("tells that its waypoint answered %i", async (status, reason) => {
    const { lab, destination, peer } = await setUp(() => refuse(status));
    expect(await lab.talk(destination, "hello")).toBe("");
    const error = `http status: ${status} from the destination's ztunnel`;
    expect(lab.lines()).toMatchObject([{ reason, error }]);
    lab[Symbol.dispose]();
    peer[Symbol.dispose]();
  });

  it("is not reached when somebody else sits at the waypoint's address", async () => {
    const { lab, destination, peer } = await setUp((port) => relayTo(port, "127.0.0.1"), "other");
    expect(await lab.talk(destination, "hello")).toBe("");
    expect(lab.lines()).toMatchObject([{ reason: "TLS_FAILED" }]);
    expect(peer.requests).toEqual([]);
    lab[Symbol.dispose]();
    peer[Symbol.dispose]();
  });
});

describe("a service on another network", () => {
  interface Wish {
    readonly gatewayBy?: "address" | "hostname";
    readonly sans?: readonly string[];
    readonly inner?: (echo: number) => Script;
  }

  async function setUp({ gatewayBy = "address", sans = [SAN], inner }: Wish = {}) {
    const known = mesh().workload("web", ["10.9.0.1"]).workload("gate", [GATEWAY_IP]);
    const lab = new OutboundLab(known, { network: "home" });
    const [destination, echo] = [await lab.destination(VIP), await lab.echo("127.0.0.1")];
    const toEcho = inner?.(portOf(echo)) ?? relayTo(portOf(echo), "127.0.0.1", { baggage: TOLD });
    const far = await HbonePeer.listen("127.0.0.5", lab.certificate("web"), toEcho);
    const toFar = relayTo(far.port, "127.0.0.5");
    const gateway = await HbonePeer.listen(GATEWAY_IP, lab.certificate("gate"), toFar);
    const { port } = gateway;
    const gateName = "gate.ns.svc.cluster.local";
    known
      .workload("gate", [GATEWAY_IP], {
        services: { [`ns/${gateName}`]: { ports: [{ servicePort: 15_009, targetPort: port }] } },
      })
      .service("gate", ["10.96.0.4"], { ports: [{ servicePort: 15_009, targetPort: port }] })
      .service("web", [VIP], {
        ports: [{ servicePort: portOf(destination), targetPort: 80 }],
        subjectAltNames: [...sans],
      })
      .workload("remote", [], {
        network: "far",
        services: {
          [`ns/${HOSTNAME}`]: { ports: [{ servicePort: portOf(destination), targetPort: 80 }] },
        },
        networkGateway:
          gatewayBy === "address" ? byAddress(GATEWAY_IP, port) : byHostname(gateName, 15_009),
      });
    const dispose = () => {
      lab[Symbol.dispose]();
      gateway[Symbol.dispose]();
      far[Symbol.dispose]();
    };
    return { lab, destination, gateway, far, dispose };
  }

  const TOLD =
    "k8s.cluster.name=west,k8s.namespace.name=ns,k8s.deployment.name=web,service.name=web-app,service.version=v9";

  it.each(["address", "hostname"] as const)(
    "is reached by two tunnels, through its gateway by %s",
    async (gatewayBy) => {
      const { lab, destination, gateway, far, dispose } = await setUp({ gatewayBy });
      expect(await lab.talk(destination, "hello")).toBe("hello");
      const authority = `${HOSTNAME}:${portOf(destination)}`;
      expect([gateway.requests, far.requests]).toMatchObject([
        [{ authority, peer: lab.identity("client") }],
        [{ authority, peer: lab.identity("client") }],
      ]);
      expect(gateway.requests[0]?.headers).not.toHaveProperty("x-forwarded-network");
      expect(far.requests[0]?.headers).toMatchObject({
        "x-forwarded-network": "home",
        traceparent: gateway.requests[0]!.headers["traceparent"],
      });
      expect(lab.lines()).toMatchObject([
        {
          "dst.addr": `${GATEWAY_IP}:${gateway.port}`,
          "dst.hbone_addr": authority,
          "dst.identity": SAN,
          "dst.namespace": "ns",
          "dst.cluster": "west",
          path: "hbone",
          bytes_sent: 5,
          bytes_recv: 5,
        },
      ]);
      const [opened] = lab.context.telemetry.metrics.collect();
      expect(opened?.values[0]?.labels).toMatchObject({
        destination_workload: "web",
        destination_canonical_revision: "v9",
        destination_principal: SAN,
      });
      dispose();
    },
  );

  it("carries much in both directions, whole", async () => {
    const { lab, destination, dispose } = await setUp();
    const text = "0123456789abcdef".repeat(1 << 17);
    const received = await lab.talk(destination, text);
    expect(received.length).toBe(text.length);
    expect(received === text).toBe(true);
    dispose();
  });

  it("shares the outer tunnel, and never an inner one", async () => {
    const { lab, destination, gateway, far, dispose } = await setUp();
    await lab.talk(destination, "one");
    await lab.talk(destination, "two");
    expect([gateway.connections, far.connections]).toEqual([1, 2]);
    dispose();
  });

  it.each([
    ["nobody", []],
    ["somebody else", ["spiffe://cluster.local/ns/ns/sa/other"]],
    ["what is no identity", ["web.example"]],
  ])("is refused when the service's names allow %s", async (_, sans) => {
    const { lab, destination, far, dispose } = await setUp({ sans });
    expect(await lab.talk(destination, "hello")).toBe("");
    expect(far.requests).toEqual([]);
    expect(lab.lines()).toMatchObject([
      { reason: "TLS_FAILED", error: expect.stringMatching(/^inner tunnel: peer is/) as string },
    ]);
    dispose();
  });

  it("tells what the far side refused", async () => {
    const { lab, destination, dispose } = await setUp({ inner: () => refuse(401) });
    expect(await lab.talk(destination, "hello")).toBe("");
    expect(lab.lines()).toMatchObject([{ reason: "TUNNEL_UNAUTHORIZED" }]);
    expect(lab.context.connections.size).toBe(0);
    dispose();
  });
});
