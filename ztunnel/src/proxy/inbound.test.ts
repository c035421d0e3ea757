import { describe, expect, it } from "vitest";
import {
  ApplicationTunnel_Protocol,
  type WorkloadSchema,
} from "@ambit/api/gen/istio/workload_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TunnelResponse } from "@ambit/common/hbone/client.ts";
import { formatSocketAddress } from "@ambit/common/net/socket-address.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import { parseProxyHeader, TLV_IDENTITY } from "@ambit/common/net/proxy-protocol.ts";
import type { Config } from "../config.ts";
import { bytes, type TestMesh } from "../state/testing-mesh.ts";
import { identityOf, InboundLab, SERVER_IP, talkThrough } from "../testing/inbound-lab.ts";

const POD = SERVER_IP;

type Workload = MessageInitShape<typeof WorkloadSchema>;

/** A client of the pod `web`, which may have an application tunnel or be a waypoint. */
async function setUp(config: Partial<Config> = {}) {
  const lab = await InboundLab.open({ config });
  const client = await lab.connect(lab.ca.issue(identityOf("client")));
  const ask = (authority?: string) => lab.open(client, {}, authority);
  const become = (changes: Workload) => lab.mesh.workload("web", [POD], changes);
  const tunnelTo = (protocol: "NONE" | "PROXY", port: number) =>
    become({ applicationTunnel: { protocol: ApplicationTunnel_Protocol[protocol], port } });
  return { lab, ask, become, tunnelTo };
}

async function exchange(answer: TunnelResponse, text: string): Promise<Buffer> {
  return (await talkThrough(answer)).finish(text);
}

describe("a tunnel to a pod", () => {
  it("reaches its application and is told of the workload in baggage", async () => {
    const { lab, ask, become } = await setUp();
    using _ = lab;
    become({ clusterId: "west", workloadName: "web" });
    const answer = await ask();
    expect(answer.status).toBe(200);
    expect(answer.headers.get("baggage")).toMatch(/^k8s\.cluster\.name=west,/);
    expect((await exchange(answer, "hello")).toString()).toBe("hello");
  });

  it.each([
    ["a port where nobody listens", `${POD}:1`, 503, "CONNECT_FAILED"],
    ["ztunnel's own port", `${POD}:15008`, 503, "SELF_CALL"],
    ["another address", "127.0.0.8:80", 400, "IP_MISMATCH"],
    ["an unknown hostname", "ghost.ns.svc.cluster.local:80", 503, "UNKNOWN_DESTINATION"],
    ["no port", POD, 400, "BAD_AUTHORITY"],
  ])("for %s is refused, without baggage", async (_, authority, status, reason) => {
    const { lab, ask } = await setUp();
    using __ = lab;
    const answer = await ask(authority);
    expect([answer.status, answer.headers.get("baggage")]).toEqual([status, undefined]);
    await lab.line({ scope: "access", reason });
  });

  it("says nothing in baggage when that is switched off", async () => {
    const { lab, ask } = await setUp({ responseBaggage: false });
    using _ = lab;
    const answer = await ask();
    expect([answer.status, answer.headers.get("baggage")]).toEqual([200, undefined]);
    await exchange(answer, "");
  });
});

/** Two ways to send through the pod as a waypoint: to a service's VIP, to a workload's address. */
const BEHIND = { service: "10.96.0.1", workload: "10.0.0.2" };
const GATE = {
  destination: { case: "address" as const, value: { address: bytes(POD) } },
  hboneMtlsPort: 15_008,
};

function behind(mesh: TestMesh): TestMesh {
  return mesh
    .service("shop", [BEHIND.service], { waypoint: GATE })
    .workload("shop", [BEHIND.workload], { waypoint: GATE });
}

const COMPLETE = { scope: "access", message: "connection complete" };

describe.each(["service", "workload"] as const)("a sandwiched waypoint of a %s", (attached) => {
  it("without application tunnel is called at the pod, on the asked port", async () => {
    const { lab, ask } = await setUp();
    using _ = lab;
    behind(lab.mesh);
    const asked = `${BEHIND[attached]}:${lab.appPort}`;
    const answer = await ask(asked);
    expect((await exchange(answer, "hello")).toString()).toBe("hello");
    await lab.line({ ...COMPLETE, "dst.hbone_addr": asked, "dst.workload": "web" });
  });

  it.each([
    ["on loopback", true, "127.0.0.1"],
    ["on the pod's address when told so", false, POD],
  ])("behind a PROXY header is called %s, and told who calls whom", async (_, localhost, ip) => {
    const { lab, ask, tunnelTo } = await setUp({ localhostAppTunnel: localhost });
    using __ = lab;
    behind(lab.mesh);
    tunnelTo("PROXY", await lab.application(ip));
    const answer = await ask(`${BEHIND[attached]}:80`);
    const received = await exchange(answer, "hello");
    const parsed = parseProxyHeader(received);
    if (parsed.kind !== "header") return expect.unreachable(parsed.kind);
    const { source, destination, tlvs } = parsed.header;
    expect(destination).toEqual({ ip: BEHIND[attached], port: 80 });
    const client = spiffeId(identityOf("client"));
    expect(tlvs.get(TLV_IDENTITY)?.toString()).toBe(client);
    expect(received.subarray(parsed.length).toString()).toBe("hello");
    const line = await lab.line({ ...COMPLETE, "src.identity": client, bytes_recv: 5 });
    expect(source && formatSocketAddress(source)).toBe(line["src.addr"]);
  });
});

describe("a service asked for by its hostname behind a PROXY header", () => {
  const named = (vips: readonly { network: string; ip: string }[]) =>
    vips.map(({ network, ip }) => ({ network, address: bytes(ip) }));

  it.each([
    ["of the pod's network, IPv4 first", ["/fd00::7", "far/10.9.0.1", "/10.96.0.7"], "10.96.0.7"],
    ["of the pod's network", ["far/10.9.0.1", "/fd00::7"], undefined],
    ["of any network", ["far/10.9.0.1"], "10.9.0.1"],
  ])("is told by an address %s", async (_, vips, told) => {
    const { lab, ask, tunnelTo } = await setUp();
    using __ = lab;
    tunnelTo("PROXY", await lab.application("127.0.0.1"));
    const addresses = vips.map((vip) => vip.split("/") as [string, string]);
    lab.mesh.service("shop", [], {
      addresses: named(addresses.map(([network, ip]) => ({ network, ip }))),
    });
    const answer = await ask("shop.ns.svc.cluster.local:80");
    const parsed = parseProxyHeader(await exchange(answer, ""));
    if (parsed.kind !== "header") return expect.unreachable(parsed.kind);
    // An address of another family than the caller's cannot be told.
    const destination = told === undefined ? undefined : { ip: told, port: 80 };
    expect(parsed.header.destination).toEqual(destination);
  });

  it("is refused when it has no address at all", async () => {
    const { lab, ask, tunnelTo } = await setUp();
    using _ = lab;
    tunnelTo("PROXY", 15_088);
    lab.mesh.service("shop", []);
    expect((await ask("shop.ns.svc.cluster.local:80")).status).toBe(503);
    const { error } = await lab.line({ reason: "UNKNOWN_DESTINATION" });
    expect(error).toMatch(/no address to tell/);
  });
});

describe("an application tunnel without PROXY header", () => {
  it("only changes the port", async () => {
    const { lab, ask, tunnelTo } = await setUp();
    using _ = lab;
    tunnelTo("NONE", await lab.application(POD));
    const answer = await ask("10.99.0.1:80");
    expect((await exchange(answer, "hello")).toString()).toBe("hello");
  });

  it("does not open ztunnel's own ports", async () => {
    const { lab, ask, tunnelTo } = await setUp();
    using _ = lab;
    tunnelTo("NONE", 15_088);
    expect((await ask("10.99.0.1:15008")).status).toBe(503);
    await lab.line({ reason: "SELF_CALL" });
  });
});
