// Whole ztunnel processes in dedicated mode: traffic, telemetry, policy, draining, failing to start.

import type { Ip } from "@ambit/common/net/ip.ts";
import { errorCode } from "@ambit/common/process/errors.ts";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CLIENT_IP, ended, Lab, roundTrip, SERVER_IP, APP_PORT, type Ztunnel } from "./lab.ts";

const CLIENT_ID = "spiffe://cluster.local/ns/default/sa/client";
const SERVER_ID = "spiffe://cluster.local/ns/default/sa/server";
const NODES = { client: "node-client", server: "node-server" };
const COMPLETE = { scope: "access", message: "connection complete" };

let lab: Lab;

beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab[Symbol.dispose]());

/** One ztunnel per side, serving. */
async function startBoth(
  options: { mesh?: string; client?: Record<string, string>; server?: Record<string, string> } = {},
): Promise<{ client: Ztunnel; server: Ztunnel }> {
  const path = lab.writeMesh(NODES, options.mesh);
  const client = lab.dedicated("client", { LOCAL_XDS_PATH: path, ...options.client });
  const server = lab.dedicated("server", { LOCAL_XDS_PATH: path, ...options.server });
  await Promise.all([client, server].map((each) => each.line({ message: "pod added" })));
  lab.echo();
  return { client, server };
}

describe("two dedicated ztunnels", () => {
  it("carry a connection over mutual TLS, and both say so with both identities", async () => {
    const { client, server } = await startBoth();
    const socket = await lab.connect();
    expect(await roundTrip(socket, "hello")).toBe("hello");
    const dump = (await client.json("/config_dump")) as Record<string, unknown>;
    expect(dump).toMatchObject({
      certificates: [{ identity: CLIENT_ID, state: "Available" }],
      workloadState: {
        dedicated: {
          state: "Up",
          info: { name: "client", namespace: "default", serviceAccount: "client" },
          connections: {
            inbound: [],
            outbound: [
              {
                originalDst: `${SERVER_IP}:${APP_PORT}`,
                actualDst: `${SERVER_IP}:15008`,
                protocol: "HBONE",
              },
            ],
          },
        },
      },
    });
    expect(await client.json("/connections")).toHaveLength(1);
    socket.end();
    const [out, inbound] = await Promise.all([client.line(COMPLETE), server.line(COMPLETE)]);
    const identities = { "src.identity": CLIENT_ID, "dst.identity": SERVER_ID };
    expect(out).toMatchObject({
      level: "info",
      direction: "outbound",
      "dst.addr": `${SERVER_IP}:15008`,
      "dst.hbone_addr": `${SERVER_IP}:${APP_PORT}`,
      bytes_sent: 5,
      bytes_recv: 5,
      ...identities,
    });
    expect(inbound).toMatchObject({
      direction: "inbound",
      bytes_sent: 5,
      bytes_recv: 5,
      ...identities,
    });
  });

  it("count it for both reporters", async () => {
    const { client, server } = await startBoth();
    const socket = await lab.connect();
    await roundTrip(socket, "hello");
    const open = "istio_tcp_sockets_open";
    expect(await client.metric(open, 'reporter="source"')).toBe(1);
    expect(await server.metric(open, 'reporter="destination"')).toBe(1);
    socket.end();
    await Promise.all([client.line(COMPLETE), server.line(COMPLETE)]);
    expect(await client.metric(open, 'reporter="source"')).toBe(0);
    for (const [ztunnel, reporter] of [
      [client, 'reporter="source"'],
      [server, 'reporter="destination"'],
    ] as const) {
      for (const name of ["opened", "closed"]) {
        expect(await ztunnel.metric(`istio_tcp_connections_${name}_total`, reporter)).toBe(1);
      }
      expect(await ztunnel.metric("istio_tcp_received_bytes_total", reporter)).toBe(5);
      expect(await ztunnel.metric("istio_tcp_sent_bytes_total", reporter)).toBe(5);
    }
    expect(await client.http(15_021, "/healthz/ready")).toBe("ready\n");
  });

  it("share the work among several workers", async () => {
    const two = { ZTUNNEL_WORKER_THREADS: "2" };
    const { client, server } = await startBoth({ client: two, server: two });
    const sockets = await Promise.all(Array.from({ length: 20 }, () => lab.connect()));
    await Promise.all(sockets.map((socket) => roundTrip(socket, "hello")));
    expect(await client.json("/connections")).toHaveLength(20);
    expect(await server.metric("istio_tcp_connections_opened_total")).toBe(20);
    for (const socket of sockets) socket.destroy();
  });
});

describe("one dedicated ztunnel", () => {
  it("reaches a server outside the mesh in plain text", async () => {
    const server = `- { uid: c//Pod/default/server, name: server, namespace: default, workloadIps: [${SERVER_IP}], protocol: TCP, node: node-server }`;
    const client = `- { uid: c//Pod/default/client, name: client, namespace: default, serviceAccount: client, workloadIps: [${CLIENT_IP}], protocol: HBONE, node: node-client }`;
    const ztunnel = lab.dedicated("client", { LOCAL_XDS: `workloads:\n${client}\n${server}\n` });
    await ztunnel.line({ message: "pod added" });
    lab.stopRedirecting("server");
    lab.echo();
    const socket = await lab.connect();
    expect(await roundTrip(socket, "hello")).toBe("hello");
    socket.end();
    const line = await ztunnel.line(COMPLETE);
    expect(line).toMatchObject({ path: "tcp", "dst.workload": "server" });
    expect(line).not.toHaveProperty("dst.identity");
  });

  it("serves a client outside the mesh in plain text", async () => {
    const path = lab.writeMesh(NODES);
    const ztunnel = lab.dedicated("server", { LOCAL_XDS_PATH: path });
    await ztunnel.line({ message: "pod added" });
    lab.stopRedirecting("client");
    lab.echo();
    const socket = await lab.connect();
    expect(await roundTrip(socket, "hello")).toBe("hello");
    socket.end();
    const line = await ztunnel.line(COMPLETE);
    expect(line).toMatchObject({ direction: "inbound", path: "tcp", bytes_sent: 5, bytes_recv: 5 });
    expect(line).not.toHaveProperty("src.identity");
  });

  it("takes an application's word by SOCKS5 for where to go", async () => {
    const { client } = await startBoth({ client: { UNSTABLE_ENABLE_SOCKS5: "true" } });
    const socket = await lab.connect("client", { ip: "127.0.0.1" as Ip, port: 15_080 });
    expect(await roundTrip(socket, Buffer.of(5, 1, 0), 2)).toBe("\u0005\u0000");
    const address = SERVER_IP.split(".").map(Number);
    const request = Buffer.of(5, 1, 0, 1, ...address, APP_PORT >> 8, APP_PORT & 0xff);
    expect(await roundTrip(socket, request, 10)).toContain("\u0005\u0000");
    expect(await roundTrip(socket, "hello")).toBe("hello");
    socket.end();
    expect(await client.line(COMPLETE)).toMatchObject({
      "src.addr": expect.stringMatching(/^127\.0\.0\.1:/) as string,
      "dst.identity": SERVER_ID,
    });
  });
});

describe("a policy that denies", () => {
  const DENY = `
policies:
- name: deny-client
  namespace: default
  scope: Namespace
  action: Deny
  rules: [[[{ principals: [{ Exact: cluster.local/ns/default/sa/client }] }]]]
`;

  it("closes the connection, and the reason stands on both sides", async () => {
    const { client, server } = await startBoth({ mesh: DENY });
    const socket = await lab.connect();
    await ended(socket);
    expect(await server.line(COMPLETE)).toMatchObject({
      level: "error",
      error: expect.stringContaining("explicitly denied by: default/deny-client") as string,
    });
    expect(await client.line(COMPLETE)).toMatchObject({
      error: expect.stringContaining("401") as string,
    });
    expect(await server.metric("istio_tcp_connections_opened_total", 'response_flags="-"')).toBe(1);
    expect(await server.metric("istio_tcp_connections_closed_total", "DENY")).toBe(1);
  });

  it("is what explain says, without a connection", async () => {
    const { client } = await startBoth({ mesh: DENY });
    const query = `source=default/client&destination=${SERVER_IP}:${APP_PORT}`;
    expect(await client.json(`/explain?${query}`)).toMatchObject({
      path: "hbone",
      verdict: "denied",
      decidedBy: "default/deny-client",
    });
  });
});

describe("draining", () => {
  it("lets established connections go on, takes no new ones, and ends when the last is over", async () => {
    const { client } = await startBoth({ client: { CONNECTION_TERMINATION_DEADLINE: "1h" } });
    const socket = await lab.connect();
    await roundTrip(socket, "before");
    client.signal("SIGTERM");
    await client.line({ message: "draining" });
    expect(await roundTrip(socket, "during")).toBe("during");
    // Its threads close their listeners a moment later than it says so.
    const connects = () =>
      lab.connect().then(
        (late) => void late.destroy(),
        (error: unknown) => errorCode(error),
      );
    await expect.poll(connects).toBe("ECONNREFUSED");
    socket.end();
    expect(await client.exited).toBe(0);
    const bytes = { bytes_sent: "beforeduring".length };
    expect(await client.line({ ...COMPLETE, ...bytes })).not.toHaveProperty("error");
  });

  it("cuts what is left at the deadline and says why", async () => {
    const { client } = await startBoth({ client: { CONNECTION_TERMINATION_DEADLINE: "200ms" } });
    const socket = await lab.connect();
    await roundTrip(socket, "before");
    client.signal("SIGTERM");
    await ended(socket);
    expect(await client.exited).toBe(0);
    expect((await client.line(COMPLETE))["error"]).toBe(
      "connection closed due to connection drain",
    );
  });

  it("of the server's side lets established streams go on, too", async () => {
    const { server } = await startBoth({ server: { CONNECTION_TERMINATION_DEADLINE: "1h" } });
    const socket = await lab.connect();
    await roundTrip(socket, "before");
    server.signal("SIGTERM");
    await server.line({ message: "draining" });
    expect(await roundTrip(socket, "during")).toBe("during");
    socket.end();
    expect(await server.exited).toBe(0);
  });

  it("starts by /quitquitquit as well", async () => {
    const { client } = await startBoth();
    expect(await client.http(15_000, "/quitquitquit", "POST")).toBe("shutdown now\n");
    expect(await client.exited).toBe(0);
  });

  it("ends at once on a second SIGINT", async () => {
    const { client } = await startBoth({ client: { CONNECTION_TERMINATION_DEADLINE: "1h" } });
    const socket = await lab.connect();
    await roundTrip(socket, "before");
    client.signal("SIGINT");
    await client.line({ message: "draining" });
    client.signal("SIGINT");
    expect(await client.exited).toBe(0);
    socket.destroy();
  });
});

/** environment, exit code, what the one sentence says. */
const FAILURES: readonly [string, Record<string, string>, number, RegExp][] = [
  ["a setting that is none", { FAKE_CA: "perhaps" }, 2, /^error: invalid configuration: FAKE_CA/],
  [
    "a mesh file that is not there",
    { LOCAL_XDS_PATH: "/nonexistent" },
    1,
    /^error: .*\/nonexistent/,
  ],
  ["a mesh that cannot be used", { LOCAL_XDS: "workloads: 1" }, 1, /^error: LOCAL_XDS: /],
];

describe("a start that fails", () => {
  it.each(FAILURES)("for %s ends with one sentence", async (_, env, code, sentence) => {
    const ztunnel = lab.dedicated("client", { LOCAL_XDS: "", ...env });
    expect(await ztunnel.exited).toBe(code);
    expect(ztunnel.plain.join("\n")).toMatch(sentence);
    expect(ztunnel.plain.join("\n")).not.toContain("    at ");
  });

  it("for a port that is taken names it", async () => {
    await startBoth();
    const second = lab.dedicated("client", { LOCAL_XDS_PATH: lab.writeMesh(NODES) });
    expect(await second.exited).toBe(1);
    expect(second.plain.join("\n")).toMatch(/^error: cannot listen on .*15021: it is in use/);
  });
});
