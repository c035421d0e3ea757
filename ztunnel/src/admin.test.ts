import { describe, expect, it } from "vitest";
import { type HttpReply, startHttpServer } from "@ambit/common/process/http-server.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import { NO_USAGE } from "./telemetry/pod-account.ts";
import { adminRoutes } from "./admin.ts";
import { parseConfig } from "./config.ts";
import type { SecretState } from "./identity/secret-manager.ts";
import { FakeWorkers } from "./testing/fake-workers.ts";
import type { ConnectionSummary } from "./proxy/connection.ts";

const identity = { trustDomain: "cluster.local", namespace: "ns", serviceAccount: "sa" };

const CONNECTION: ConnectionSummary = {
  id: "1",
  direction: "outbound",
  workload: "c//Pod/ns/a" as ConnectionSummary["workload"],
  src: "10.0.0.1:1",
  originalDst: "10.96.0.1:80",
  actualDst: "10.0.0.2:15008",
  protocol: "HBONE",
  bytesSent: 1,
  bytesReceived: 2,
};

class ProfiledFakes extends FakeWorkers {
  startProfile(worker: number) {
    return worker === 0 ? Promise.resolve({ stop: () => Promise.resolve("{}") }) : undefined;
  }
}

function setUp(env: Record<string, string> = {}) {
  const config = parseConfig(env, "/nonexistent");
  const workers = new ProfiledFakes();
  workers.answers.stateDump = () => ({
    workloads: [],
    services: [],
    policies: [],
    stagedServices: ["ns/a"],
  });
  workers.answers.connections = () => [];
  workers.answers.podUsage = () => [{ uid: "uid-1", usage: { ...NO_USAGE, inbound: 1 } }];
  const { log } = memoryLog(config.logLevel);
  const secrets: { id: string; state: SecretState }[] = [];
  let stops = 0;
  const routes = adminRoutes({
    config,
    workers,
    secrets: { secrets },
    pods: {
      dump: (connections, usage) => ({
        "uid-1": { connections: connections.length, usage: usage.get("uid-1") },
      }),
    },
    log,
    stop: () => stops++,
  });
  const call = async (route: string, query = ""): Promise<HttpReply> =>
    routes[route]!({ query: new URLSearchParams(query), headers: {} });
  return { call, routes, workers, log, secrets, stops: () => stops };
}

const bodyOf = (reply: HttpReply): Record<string, unknown> =>
  JSON.parse(reply.body.toString()) as Record<string, unknown>;

describe("/config_dump", () => {
  it("has the keys istioctl reads, from one worker's state", async () => {
    const { call, workers } = setUp();
    workers.answers.connections = () => [CONNECTION];
    const dump = bodyOf(await call("GET /config_dump"));
    expect(Object.keys(dump).sort()).toEqual([
      "certificates",
      "config",
      "policies",
      "services",
      "stagedServices",
      "staticConfig",
      "version",
      "workloadState",
      "workloads",
    ]);
    expect(dump).toMatchObject({
      stagedServices: ["ns/a"],
      staticConfig: { workloads: [], services: [], policies: [] },
      workloadState: { "uid-1": { connections: 1, usage: { opened: 0 } } },
      config: { adminPort: 15_000 },
    });
  });

  it("shows certificates with PEM in base64 and decimal serial numbers, and no key", async () => {
    const { call, secrets } = setUp();
    const certificate = new TestCa().issue(identity);
    secrets.push(
      { id: "spiffe://c", state: { state: "unavailable", reason: "CA away" } },
      { id: "spiffe://a", state: { state: "available", certificate } },
      { id: "spiffe://b", state: { state: "initializing" } },
    );
    const reply = await call("GET /config_dump");
    const { certificates } = bodyOf(reply) as { certificates: Record<string, unknown>[] };
    expect(certificates).toMatchObject([
      {
        identity: "spiffe://a",
        state: "Available",
        certChain: [
          {
            pem: Buffer.from(certificate.leafPem).toString("base64"),
            serialNumber: expect.stringMatching(/^\d+$/) as string,
            validFrom: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/) as string,
            expirationTime: expect.stringMatching(/^\d{4}-.*:\d\dZ$/) as string,
          },
        ],
        rootCerts: [{ pem: expect.any(String) as string }],
      },
      { identity: "spiffe://b", state: "Initializing", certChain: [] },
      { identity: "spiffe://c", state: "Unavailable: CA away", certChain: [] },
    ]);
    expect(reply.body.toString()).not.toContain("PRIVATE");
  });

  it("never shows a token given in the environment", async () => {
    const { call } = setUp({ AUTH_TOKEN: "secret-token" });
    expect((await call("GET /config_dump")).body.toString()).not.toContain("secret-token");
  });
});

describe("/logging", () => {
  it("adds to the filter, everywhere", async () => {
    const { call, workers, log } = setUp();
    const reply = await call("POST /logging", "level=access=debug");
    expect(reply.body).toBe("current log level is info,access=debug\n");
    expect(log.level).toBe("info,access=debug");
    expect(workers.asked("logLevel").map(({ ask }) => ask.filter)).toEqual(["info,access=debug"]);
  });

  it("replaces what was there for the same scope instead of growing", async () => {
    const { call, log } = setUp();
    for (const level of ["debug", "warn", "dns=debug", "dns=off"]) {
      await call("POST /logging", `level=${level}`);
    }
    expect(log.level).toBe("warn,dns=off");
  });

  it("starts over from the configured filter with reset", async () => {
    const { call, log } = setUp({ RUST_LOG: "warn" });
    await call("POST /logging", "level=debug");
    await call("POST /logging", "reset");
    expect(log.level).toBe("warn");
    await call("POST /logging", "level=trace");
    await call("POST /logging", "reset&level=dns=debug");
    expect(log.level).toBe("warn,dns=debug");
  });

  it("refuses an unknown level and changes nothing", async () => {
    const { call, workers, log } = setUp();
    expect((await call("POST /logging", "level=loud")).status).toBe(400);
    expect(log.level).toBe("info");
    expect(workers.names).toEqual([]);
  });
});

describe("the other routes", () => {
  it("/quitquitquit starts the drain", async () => {
    const { call, stops } = setUp();
    expect((await call("POST /quitquitquit")).body).toBe("shutdown now\n");
    expect(stops()).toBe(1);
  });

  it("/explain asks a worker, and says what is missing or unknown", async () => {
    const { call, workers } = setUp();
    expect((await call("GET /explain", "source=ns/a")).status).toBe(400);
    workers.answers.explain = () => Promise.reject(new Error("no workload ns/a is known here"));
    expect(await call("GET /explain", "source=ns/a&destination=b:80")).toMatchObject({
      status: 404,
      body: "no workload ns/a is known here\n",
    });
  });

  it("/explain?id= tells what became of a connection, or that nobody knows it", async () => {
    const { call, workers } = setUp();
    const failed = { id: "7f", reason: "POLICY_DENIED" };
    workers.answers.connections = () => [CONNECTION, { ...CONNECTION, id: "7f" }];
    workers.answers.failures = ({ id }) => (id === "7f" ? [failed] : []) as never[];
    expect(bodyOf(await call("GET /explain", "id=7f"))).toEqual({
      id: "7f",
      live: [{ ...CONNECTION, id: "7f" }],
      failed: [failed],
    });
    expect(await call("GET /explain", "id=80")).toMatchObject({
      status: 404,
      body: "connection 80 is neither live nor among the latest failures of this node\n",
    });
  });

  it.each([
    ["profile", "seconds=0", 400],
    ["profile", "seconds=301", 400],
    ["profile", "frequency=0", 400],
    ["profile", "frequency=1001", 400],
    ["profile", "thread=7", 404],
    ["heap", "seconds=0", 400],
    ["profile", "seconds=1", 200],
  ])("/debug/pprof/%s?%s answers %i", async (kind, query, status) => {
    const { call } = setUp();
    expect((await call(`GET /debug/pprof/${kind}`, query)).status).toBe(status);
  });

  it("answer 405 to the wrong method and 404 to an unknown path", async () => {
    const { routes } = setUp();
    const server = await startHttpServer({ host: "127.0.0.1", port: 0, routes });
    const statusOf = async (path: string, method: string) =>
      (await fetch(`http://127.0.0.1:${server.port}${path}`, { method })).status;
    expect(await statusOf("/logging", "GET")).toBe(405);
    expect(await statusOf("/quitquitquit", "GET")).toBe(405);
    expect(await statusOf("/config_dump", "POST")).toBe(405);
    expect(await statusOf("/nothing", "GET")).toBe(404);
    expect(await statusOf("/", "GET")).toBe(200);
    await server.close();
  });
});
