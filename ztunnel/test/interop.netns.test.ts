// What takes two ztunnels and something between them, between two of ours, and with PEER_ZTUNNEL=PATH
// between another make's (Istio's) and ours, both ways: waypoints behind a PROXY header, and tunnels within
// tunnels to another network.

import { writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { asByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { DEFAULT_HBONE_SETTINGS } from "@ambit/common/hbone/limits.ts";
import { type ConnectRequest, HboneServerConnection } from "@ambit/common/hbone/server.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { parseProxyHeader, TLV_IDENTITY } from "@ambit/common/net/proxy-protocol.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { connectTcp, listenTcp } from "@ambit/common/sys/sockets.ts";
import { secureServer } from "@ambit/common/tls/secure.ts";
import { CaServer } from "./ca-server.ts";
import { APP_PORT, CLIENT_IP, Lab, MARK, SERVER_IP, untilEnd } from "./lab.ts";
import { meshFile, ports, service, workload } from "./mesh-file.ts";

const PEER = process.env["PEER_ZTUNNEL"];
type Make = "ours" | "theirs";
const PAIRS: readonly [Make, Make][] =
  PEER === undefined
    ? [["ours", "ours"]]
    : [
        ["theirs", "ours"],
        ["ours", "theirs"],
      ];

const VIP = "10.96.0.1" as Ip;
const BEHIND = "10.78.0.9" as Ip;
const LOOPBACK = "127.0.0.1" as Ip;
const TUNNEL_PORT = 15_088;
const GATEWAY_PORT = 15_009;
const CLIENT_ID = "spiffe://cluster.local/ns/default/sa/client";
const SERVER_ID = "spiffe://cluster.local/ns/default/sa/server";
const COMPLETE = { scope: "access", message: "connection complete" };

let lab: Lab;
let ca: CaServer;

beforeEach(async () => {
  lab = new Lab();
  ca = await CaServer.start(lab);
});
afterEach(() => {
  ca[Symbol.dispose]();
  lab[Symbol.dispose]();
});

/** A dedicated ztunnel of either make, ready, with a mesh from a file. */
async function start(side: "client" | "server", make: Make, mesh: string, network = "") {
  const path = join(lab.folder, `${side}.yaml`);
  writeFileSync(path, mesh);
  const env = {
    LOCAL_XDS_PATH: path,
    XDS_ADDRESS: "",
    NETWORK: network,
    ISTIO_META_DNS_CAPTURE: "false",
    ...ca.env(side),
  };
  const ztunnel = lab.dedicated(side, env, make === "theirs" ? [PEER!] : undefined);
  await ztunnel.untilReady();
  return ztunnel;
}

async function talk(ip: Ip): Promise<Buffer> {
  const socket = await lab.connect("client", { ip, port: APP_PORT });
  socket.setEncoding("latin1");
  socket.end("hello");
  return Buffer.from(await untilEnd(socket), "latin1");
}

/** A network's gateway at the server's address: it carries what is in a tunnel on to port 15008. */
function gateway(requests: ConnectRequest[]): net.Server {
  const certificate = ca.issue("gate");
  const onConnect = (request: ConnectRequest) => {
    requests.push(request);
    void carryOn(request);
  };
  const options = { settings: DEFAULT_HBONE_SETTINGS, clock: systemClock, onConnect };
  const tunnels: HboneServerConnection[] = [];
  const server = net.createServer({ allowHalfOpen: true }, (raw) => {
    raw.on("error", () => undefined);
    void secureServer(asByteSocket(raw), certificate).then((secured) => {
      if (secured.ok) tunnels.push(new HboneServerConnection(secured.socket, options));
    });
  });
  const address = { ip: SERVER_IP, port: GATEWAY_PORT };
  return server.listen({ fd: listenTcp(lab.fd("server"), { address }) });
}

async function carryOn(request: ConnectRequest): Promise<void> {
  const { socket } = await connectTcp(lab.fd("server"), {
    destination: { ip: SERVER_IP, port: 15_008 },
    timeoutMs: 5_000,
    mark: MARK,
  });
  await request.accept({}).relay(socket, { sent: 0, received: 0 });
}

describe.each(PAIRS)("a client of %s and a server of %s", (client, server) => {
  it.each([
    ["service", VIP],
    ["workload", BEHIND],
  ])("reach a waypoint of a %s, which is told who calls whom", async (_, dialed) => {
    const waypoint = { destination: `/${SERVER_IP}`, hboneMtlsPort: 15_008 };
    const applicationTunnel = { protocol: "PROXY", port: TUNNEL_PORT };
    const mesh = meshFile(
      [
        workload("client", [CLIENT_IP]),
        workload("server", [SERVER_IP], { applicationTunnel }),
        workload("behind", [BEHIND], { waypoint }),
      ],
      [service(`/${VIP}`, { ports: ports(APP_PORT, 80), waypoint })],
    );
    lab.echo("server", { ip: LOOPBACK, port: TUNNEL_PORT });
    await Promise.all([start("client", client, mesh), start("server", server, mesh)]);
    const received = await talk(dialed);
    const parsed = parseProxyHeader(received);
    if (parsed.kind !== "header") return expect.unreachable(parsed.kind);
    expect(parsed.header).toMatchObject({
      source: { ip: CLIENT_IP },
      destination: { ip: dialed, port: APP_PORT },
    });
    expect(parsed.header.tlvs.get(TLV_IDENTITY)?.toString()).toBe(CLIENT_ID);
    expect(received.subarray(parsed.length).toString()).toBe("hello");
  });

  it("reach each other across networks, by a tunnel within a tunnel", async () => {
    const own = ports(APP_PORT, APP_PORT);
    const services = { "default/web.example": own };
    const networkGateway = { destination: `home/${SERVER_IP}`, hboneMtlsPort: GATEWAY_PORT };
    const here = meshFile(
      [
        workload("client", [CLIENT_IP], { network: "home" }),
        workload("gate", [SERVER_IP], { network: "home" }),
        workload("server", [], { network: "away", networkGateway, services }),
      ],
      [service(`home/${VIP}`, { ports: own, subjectAltNames: [SERVER_ID] })],
    );
    const there = meshFile(
      [workload("server", [SERVER_IP], { network: "away", services })],
      [service(`away/${VIP}`, { ports: own })],
    );
    lab.echo();
    lab.stopRedirecting("server");
    const requests: ConnectRequest[] = [];
    const gate = gateway(requests);
    const [near, far] = await Promise.all([
      start("client", client, here, "home"),
      start("server", server, there, "away"),
    ]);
    expect((await talk(VIP)).toString()).toBe("hello");
    const authority = `web.example:${APP_PORT}`;
    expect(requests.map((request) => request.authority)).toEqual([authority]);
    for (const ztunnel of [near, far]) {
      expect(await ztunnel.line(COMPLETE)).toMatchObject({
        "dst.hbone_addr": authority,
        "src.identity": CLIENT_ID,
        "dst.identity": SERVER_ID,
      });
    }
    gate.close();
  });
});
