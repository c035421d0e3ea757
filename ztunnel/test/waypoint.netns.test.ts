// Whole ztunnels on the way to a waypoint: the client's sends to it, and the one at its pod hands over to
// the application there, which is the waypoint (a sandwich). And services that only DNS can find.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { formatSocketAddress } from "@ambit/common/net/socket-address.ts";
import { APP_PORT, CLIENT_IP, Lab, SERVER_IP, untilEnd, type Ztunnel } from "./lab.ts";
import { meshFile, ports, service, workload } from "./mesh-file.ts";

const VIP = "10.96.0.1" as Ip;
/** A workload of nobody's, behind the waypoint. */
const BEHIND = "10.78.0.9" as Ip;
const LOOPBACK = "127.0.0.1" as Ip;
const CLIENT_ID = "spiffe://cluster.local/ns/default/sa/client";
const COMPLETE = { scope: "access", message: "connection complete" };

const CLIENT = workload("client", [CLIENT_IP]);
const SERVER = workload("server", [SERVER_IP]);

let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab[Symbol.dispose]());

async function start(localXds: string): Promise<{ client: Ztunnel; server: Ztunnel }> {
  const client = lab.dedicated("client", { LOCAL_XDS: localXds });
  const server = lab.dedicated("server", { LOCAL_XDS: localXds });
  await Promise.all([client, server].map((each) => each.line({ message: "pod added" })));
  return { client, server };
}

/** Sends through redirection, and reads to the end. */
async function talk(ip: Ip): Promise<string> {
  const socket = await lab.connect("client", { ip, port: APP_PORT });
  socket.end("hello");
  return untilEnd(socket);
}

describe.each([
  ["service", VIP],
  ["workload", BEHIND],
])("a waypoint of a %s", (_, dialed) => {
  it("without application tunnel is called on the port that was dialed", async () => {
    const waypoint = { destination: `/${SERVER_IP}`, hboneMtlsPort: 15_008 };
    const behind = workload("behind", [BEHIND], { waypoint });
    const web = service(`/${VIP}`, { ports: ports(APP_PORT, 80), waypoint });
    lab.echo();
    const { client, server } = await start(meshFile([CLIENT, SERVER, behind], [web]));
    expect(await talk(dialed)).toBe("hello");
    for (const ztunnel of [client, server]) {
      expect(await ztunnel.line(COMPLETE)).toMatchObject({
        "dst.hbone_addr": formatSocketAddress({ ip: dialed, port: APP_PORT }),
        "dst.workload": "server",
        "src.identity": CLIENT_ID,
      });
    }
  });
});

describe("a service whose endpoint has only a hostname", () => {
  it("is found by DNS when it is dialed", async () => {
    const named = workload("named", [], {
      hostname: "localhost",
      protocol: "TCP",
      services: { "default/web.example": ports(APP_PORT, APP_PORT) },
    });
    const web = service(`/${VIP}`, { ports: ports(APP_PORT, APP_PORT) });
    lab.echo("client", { ip: LOOPBACK, port: APP_PORT });
    const { client } = await start(meshFile([CLIENT, SERVER, named], [web]));
    expect(await talk(VIP)).toBe("hello");
    expect(await client.line(COMPLETE)).toMatchObject({
      "dst.addr": `${LOOPBACK}:${APP_PORT}`,
      "dst.service": "web.example",
      "dst.workload": "named",
    });
    expect(await client.metric("istio_on_demand_dns_total", 'hostname="localhost"')).toBe(1);
  });
});
