// DNS as a process serves it: over TCP on its loopback port, counted on its metrics port.

import type { Ip } from "@ambit/common/net/ip.ts";
import packet from "dns-packet";
import { afterEach, beforeEach, expect, it } from "vitest";
import { frameTcp, TcpMessages } from "../src/dns/tcp-messages.ts";
import { Lab } from "./lab.ts";

let lab: Lab;
beforeEach(() => (lab = new Lab()));
afterEach(() => lab[Symbol.dispose]());

const MESH = `
services:
- { name: web, namespace: default, hostname: web.default.svc.cluster.local, vips: ["/10.96.0.1"], ports: { 80: 8080 } }
`;

async function ask(name: string): Promise<packet.DecodedPacket> {
  const destination = { ip: "127.0.0.1" as Ip, port: 15_053 };
  const socket = await lab.connect("client", destination);
  const query = packet.encode({ type: "query", id: 7, questions: [{ type: "A", name }] });
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
