// Whole ztunnels on the way to a waypoint: the client's sends to it, and the one at its pod hands over to
// the application there, which is the waypoint (a sandwich). And services that only DNS can find.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress } from "@ambit/common/net/socket-address.ts";
import { parseProxyHeader, TLV_IDENTITY } from "@ambit/common/net/proxy-protocol.ts";
import { APP_PORT, CLIENT_IP, Lab, SERVER_IP, untilEnd, type Ztunnel } from "./lab.ts";

const VIP = "10.96.0.1" as Ip;
/** A workload of nobody's, behind the waypoint. */
const BEHIND = "10.78.0.9" as Ip;
const TUNNEL_PORT = 15_088;
const CLIENT_ID = "spiffe://cluster.local/ns/default/sa/client";
const COMPLETE = { scope: "access", message: "connection complete" };
const LOOPBACK = "127.0.0.1" as Ip;

let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab[Symbol.dispose]());

const WAYPOINT = `waypoint: { destination: /${SERVER_IP}, hboneMtlsPort: 15008 }`;

/** Both pods; the server's is the waypoint of a service and of a workload. */
function mesh(serverTunnel: string): string {
  const pod = (name: string, ip: string, more = "") =>
    `- { uid: c//Pod/default/${name}, name: ${name}, namespace: default, serviceAccount: ${name}, workloadIps: [${ip}], protocol: HBONE, node: node-${name}${more} }`;
  return [
    "workloads:",
    pod("client", CLIENT_IP),
    pod("server", SERVER_IP, serverTunnel),
    pod("behind", BEHIND, `, ${WAYPOINT}`),
    "services:",
    `- { name: web, namespace: default, hostname: web.example, vips: [/${VIP}], ports: { ${APP_PORT}: 80 }, ${WAYPOINT} }`,
  ].join("\n");
}

async function start(localXds: string): Promise<{ client: Ztunnel; server: Ztunnel }> {
  const client = lab.dedicated("client", { LOCAL_XDS: localXds });
  const server = lab.dedicated("server", { LOCAL_XDS: localXds });
  await Promise.all([client, server].map((each) => each.line({ message: "pod added" })));
  return { client, server };
}

/** Sends through redirection, and reads to the end. */
async function talk(ip: Ip): Promise<Buffer> {
  const socket = await lab.connect("client", { ip, port: APP_PORT });
  socket.setEncoding("latin1");
  socket.end("hello");
  return Buffer.from(await untilEnd(socket), "latin1");
}

describe.each([
  ["service", VIP],
  ["workload", BEHIND],
])("a waypoint of a %s", (_, dialed) => {
  const authority = formatSocketAddress({ ip: dialed, port: APP_PORT });

  it("without application tunnel is called on the port that was dialed", async () => {
    lab.echo();
    const { client, server } = await start(mesh(""));
    expect((await talk(dialed)).toString()).toBe("hello");
    for (const ztunnel of [client, server]) {
      expect(await ztunnel.line(COMPLETE)).toMatchObject({
        "dst.hbone_addr": authority,
        "dst.workload": "server",
        "src.identity": CLIENT_ID,
      });
    }
  });

  it("behind a PROXY header is told who calls whom", async () => {
    lab.echo("server", { ip: LOOPBACK, port: TUNNEL_PORT });
    const { server } = await start(
      mesh(`, applicationTunnel: { protocol: PROXY, port: ${TUNNEL_PORT} }`),
    );
    const received = await talk(dialed);
    const parsed = parseProxyHeader(received);
    if (parsed.kind !== "header") return expect.unreachable(parsed.kind);
    const { source, destination, tlvs } = parsed.header;
    expect(destination).toEqual({ ip: dialed, port: APP_PORT });
    expect(source?.ip).toBe(CLIENT_IP);
    expect(tlvs.get(TLV_IDENTITY)?.toString()).toBe(CLIENT_ID);
    expect(received.subarray(parsed.length).toString()).toBe("hello");
    const line = await server.line(COMPLETE);
    expect(line["src.addr"]).toBe(source && formatSocketAddress(source));
  });
});

describe("a service whose endpoint has only a hostname", () => {
  it("is found by DNS when it is dialed", async () => {
    lab.echo("client", { ip: LOOPBACK, port: APP_PORT });
    const { client } = await start(`
workloads:
- { uid: c//Pod/default/client, name: client, namespace: default, serviceAccount: client, workloadIps: [${CLIENT_IP}], protocol: HBONE, node: node-client }
- { uid: c//Pod/default/server, name: server, namespace: default, serviceAccount: server, workloadIps: [${SERVER_IP}], protocol: HBONE, node: node-server }
- { uid: named, name: named, namespace: default, hostname: localhost, protocol: TCP, services: { default/web.example: { ${APP_PORT}: ${APP_PORT} } } }
services:
- { name: web, namespace: default, hostname: web.example, vips: [/${VIP}], ports: { ${APP_PORT}: ${APP_PORT} } }
`);
    expect((await talk(VIP)).toString()).toBe("hello");
    expect(await client.line(COMPLETE)).toMatchObject({
      "dst.addr": `${LOOPBACK}:${APP_PORT}`,
      "dst.service": "web.example",
      "dst.workload": "named",
    });
    expect(await client.metric("istio_on_demand_dns_total", 'hostname="localhost"')).toBe(1);
  });
});
