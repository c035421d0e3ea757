// ztunnel itself, reached through a tunnel in its own namespace, as its own workload.

import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { asByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { HboneClientConnection } from "@ambit/common/hbone/client.ts";
import { DEFAULT_HBONE_SETTINGS } from "@ambit/common/hbone/limits.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { connectTcp } from "@ambit/common/sys/sockets.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import { secureClient } from "@ambit/common/tls/secure.ts";
import { FakeCa } from "../src/identity/fake-ca.ts";
import { FakeAgent, SNAPSHOT } from "../src/testing/fake-agent.ts";
import { talkThrough } from "../src/testing/inbound-lab.ts";
import { Lab, type Ztunnel } from "./lab.ts";

const SELF = "127.0.0.1" as Ip;
const ZTUNNEL = {
  trustDomain: "cluster.local",
  namespace: "istio-system",
  serviceAccount: "ztunnel",
};
const MESH = `workloads: [{ uid: c//Pod/istio-system/ztunnel-a, name: ztunnel-a, namespace: istio-system,
  serviceAccount: ztunnel, workloadIps: [${SELF}], protocol: HBONE, node: node-1 }]`;

let lab: Lab;
let agent: FakeAgent;
let ztunnel: Ztunnel;

beforeEach(async () => {
  lab = new Lab();
  agent = new FakeAgent(join(lab.folder, "zds.sock"));
  ztunnel = lab.ztunnel("node", {
    NODE_NAME: "node-1",
    INPOD_UDS: join(lab.folder, "zds.sock"),
    LOCAL_XDS: MESH,
    POD_NAME: "ztunnel-a",
    POD_NAMESPACE: "istio-system",
    SERVICE_ACCOUNT: "ztunnel",
  });
  await agent.connected();
  expect(await agent.send(SNAPSHOT)).toBe("");
});
afterEach(() => {
  agent.close();
  lab[Symbol.dispose]();
});

/** A tunnel of a scraper in the mesh. */
async function scraper(): Promise<HboneClientConnection> {
  const ca = new FakeCa({
    folder: join(lab.folder, "ca"),
    trustDomain: "cluster.local",
    ttlSeconds: 3600,
    clock: systemClock,
  });
  const own = await ca.fetch({ ...ZTUNNEL, serviceAccount: "prometheus" });
  const destination = { ip: SELF, port: 15_008 };
  const { socket } = await connectTcp(lab.fd("node"), { destination, timeoutMs: 5_000 });
  const secured = await secureClient(asByteSocket(socket), own, [spiffeId(ZTUNNEL)]);
  if (!secured.ok) throw new Error(secured.reason);
  return new HboneClientConnection(secured.socket, {
    settings: DEFAULT_HBONE_SETTINGS,
    clock: systemClock,
  });
}

it("ztunnel's own metrics are read through a tunnel to itself", async () => {
  const tunnel = await scraper();
  const answer = await tunnel.openTunnel({ authority: `${SELF}:15020`, headers: {} });
  expect(answer.status).toBe(200);
  const talk = await talkThrough(answer);
  const request = "GET /metrics HTTP/1.1\r\nHost: ztunnel\r\nConnection: close\r\n\r\n";
  const text = (await talk.hear(request)).toString();
  expect(text).toMatch(/^HTTP\/1\.1 200 /);
  expect(text).toContain('istio_build{component="ztunnel"');
  expect(await ztunnel.line({ message: "connection complete" })).toMatchObject({
    direction: "inbound",
    "dst.workload": "ztunnel-a",
    "src.identity": "spiffe://cluster.local/ns/istio-system/sa/prometheus",
  });
  const own = await tunnel.openTunnel({ authority: `${SELF}:15008`, headers: {} });
  expect(own.status).toBe(503);
  tunnel.close();
});
