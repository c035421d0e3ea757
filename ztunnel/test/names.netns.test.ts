// DNS as a process serves it: over TCP on its loopback port, counted on its metrics port.

import type { Ip } from "@ambit/common/net/ip.ts";
import packet from "dns-packet";
import { afterEach, beforeEach, expect, it } from "vitest";
import { frameTcp, TcpMessages } from "../src/dns/tcp-messages.ts";
import { CaServer } from "./ca-server.ts";
import { Lab } from "./lab.ts";

let lab: Lab;
beforeEach(() => (lab = new Lab()));
afterEach(() => lab[Symbol.dispose]());

const MESH = `
services:
- { name: web, namespace: default, hostname: web.default.svc.cluster.local, vips: ["/10.96.0.1"], ports: { 80: 8080 } }
`;

async function ask(
  name: string,
  type: "A" | "AAAA" = "A",
  side: "client" | "server" = "client",
): Promise<packet.DecodedPacket> {
  const destination = { ip: "127.0.0.1" as Ip, port: 15_053 };
  const socket = await lab.connect(side, destination);
  const query = packet.encode({ type: "query", id: 7, questions: [{ type, name }] });
  try {
    return await new Promise((resolve) => {
      const messages = new TcpMessages((message) => resolve(packet.decode(message)));
      socket.on("data", (chunk: Buffer) => messages.push(chunk));
      socket.write(frameTcp(query));
    });
  } finally {
    socket.destroy();
  }
}

it("answers for services of the mesh, and counts what it answered and what it did not", async () => {
  const path = lab.writeMesh({ client: "node-client", server: "node-server" }, MESH);
  const client = lab.dedicated("client", { LOCAL_XDS_PATH: path, RUST_LOG: "info,dns=debug" });
  await client.line({ message: "pod added" });
  expect(await ask("web")).toMatchObject({ flag_aa: true, answers: [{ data: "10.96.0.1" }] });
  expect(await ask("else.invalid")).toMatchObject({ rcode: "SERVFAIL" });
  await client.line({ scope: "dns", domain: "web", result: "success", endpoints: 1 });
  const labels = 'request_query_type="a",request_protocol="tcp"';
  expect(await client.metric("istio_dns_requests_total", labels)).toBe(2);
  expect(await client.metric("istio_dns_upstream_requests_total", labels)).toBe(1);
  expect(await client.metric("istio_dns_upstream_failures_total", labels)).toBe(1);
  const count = "istio_dns_upstream_request_duration_seconds_count";
  expect(await client.metric(count, labels)).toBe(1);
});

const service = (name: string, more: string) =>
  `- { name: ${name}, namespace: default, ports: { 80: 8080 }, ${more} }`;

const MANY = `
services:
${[
  service("web", 'hostname: web.default.svc.cluster.local, vips: ["/10.96.0.1"]'),
  service("dual", 'hostname: dual.example, vips: ["/10.96.0.2", "/fd00::2"]'),
  service("six", 'hostname: six.example, vips: ["/fd00::3"]'),
  service("wild", 'hostname: "*.wild.example", vips: ["/10.96.0.4"]'),
  service("deep", 'hostname: "*.deep.wild.example", vips: ["/10.96.0.5"]'),
  service("far", 'hostname: far.example, vips: ["n2/10.96.0.6"]'),
  service("headless", "hostname: headless.default.svc.cluster.local, vips: []"),
].join("\n")}
`;

/** All of them ours to answer: nothing is forwarded. */
const ASKED = [
  "web",
  "web.default",
  "web.default.svc",
  "WEB.default.svc.cluster.local",
  "dual.example",
  "six.example",
  "a.wild.example",
  "a.b.wild.example",
  "x.deep.wild.example",
  "far.example",
  "headless.default",
];

const PEER = process.env["PEER_ZTUNNEL"];

/** What counts of an answer. */
function essence({ answers, ...header }: packet.DecodedPacket): unknown {
  const records = (answers ?? []).map((one) => {
    const ttl = "ttl" in one ? one.ttl : undefined;
    const data = "data" in one ? one.data : undefined;
    return JSON.stringify([one.type, one.name.toLowerCase(), ttl, data]);
  });
  const { rcode } = header as unknown as { rcode: string };
  const { flag_aa: authoritative, flag_ra: recursion, flag_tc: cut } = header;
  return { rcode, authoritative, recursion, cut, records: new Set(records) };
}

it.runIf(PEER !== undefined)("answers as another make's does", async () => {
  using ca = await CaServer.start(lab);
  const path = lab.writeMesh({ client: "node-client", server: "node-server" }, MANY);
  const start = async (side: "client" | "server", program?: string[]) => {
    const env = { LOCAL_XDS_PATH: path, XDS_ADDRESS: "", ...ca.env(side) };
    await lab.dedicated(side, env, program).untilReady();
  };
  await Promise.all([start("client"), start("server", [PEER!])]);
  for (const name of ASKED) {
    for (const type of ["A", "AAAA"] as const) {
      const [ours, theirs] = [await ask(name, type, "client"), await ask(name, type, "server")];
      expect({ name, type, answer: essence(ours) }).toEqual({
        name,
        type,
        answer: essence(theirs),
      });
    }
  }
});
