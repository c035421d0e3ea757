import net from "node:net";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { relaySockets } from "@ambit/common/hbone/relay.ts";
import { NetByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { Signal } from "@ambit/common/testing/signal.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { workloadIdentity } from "../state/workload.ts";
import { partyOfWorkload, UNKNOWN_PARTY } from "../telemetry/party.ts";
import { type TestContext, testContext, testPod } from "../testing/test-context.ts";
import { PodAccount } from "../telemetry/pod-account.ts";
import { Connection } from "./connection.ts";
import type { Pod } from "./context.ts";
import { ProxyError } from "./proxy-error.ts";
import { reviewConnections } from "./review.ts";
import { serve } from "./serve.ts";

const APP = "127.0.0.1" as Ip;

let mesh: TestMesh;
let context: TestContext;
let pod: Pod;
let app: net.Server;

beforeEach(async () => {
  mesh = new TestMesh().workload("web", [APP]).workload("client", ["10.0.0.1"]);
  context = testContext({ state: mesh.state, config: { originalSource: "never" } });
  pod = testPod(context, { name: "web", namespace: "ns", serviceAccount: "web" });
  app = net.createServer((socket) => socket.on("error", () => undefined).pipe(socket));
  app.listen(0, APP);
  await once(app, "listening");
});
afterEach(() => app.close());

/** An inbound connection that relays to the application; `secured` when it came in a tunnel. */
async function arrive(secured: boolean, id = "one", more: { outbound?: Connection } = {}) {
  const far = net.createServer({ allowHalfOpen: true });
  far.listen(0, "127.0.0.1");
  await once(far, "listening");
  const client = net.connect((far.address() as net.AddressInfo).port, "127.0.0.1");
  client.on("error", () => undefined);
  const [accepted] = (await once(far, "connection")) as [net.Socket];
  far.close();
  const near = new NetByteSocket(accepted);
  const source = mesh.get("client");
  const target = { ip: APP, port: (app.address() as net.AddressInfo).port };
  const relaying = new Signal();
  let started = false;
  const ended = serve(
    {
      id,
      context,
      pod,
      workload: mesh.get("web"),
      path: secured ? "hbone" : "tcp",
      source: { ip: "10.0.0.1" as Ip, port: 4_000 },
      sourceParty: secured ? partyOfWorkload(source) : UNKNOWN_PARTY,
      ...(secured && { sourceIdentity: workloadIdentity(source) }),
      destination: target,
      target,
      ...more,
    },
    (socket, counters, connection) => {
      connection.onAbort(() => near.destroy());
      started = true;
      relaying.changed();
      return relaySockets(socket, near, counters);
    },
  );
  return { client, ended, started: () => relaying.until(() => started) };
}

const STRICT = {
  scope: Scope.NAMESPACE,
  action: Action.DENY,
  rules: [
    {
      clauses: [
        { matches: [{ notPrincipals: [{ matchType: { case: "presence" as const, value: {} } }] }] },
      ],
    },
  ],
};

function accessLines() {
  return context.lines().filter(({ message }) => message === "connection complete");
}

describe("an inbound connection", () => {
  it("is refused before the application hears of it", async () => {
    mesh.policy("strict", STRICT);
    let connections = 0;
    app.on("connection", () => connections++);
    const { ended, client } = await arrive(false);
    await expect(ended).rejects.toMatchObject({ code: "POLICY_DENIED", httpStatus: 401 });
    expect(connections).toBe(0);
    expect(accessLines()).toMatchObject([{ reason: "POLICY_DENIED", id: "one", path: "tcp" }]);
    expect(context.telemetry.failures.find("one")).toMatchObject([{ reason: "POLICY_DENIED" }]);
    client.destroy();
  });

  it("past the pod's bound is refused before the application hears of it, until one is over", async () => {
    pod = { ...pod, account: new PodAccount({ inbound: 1, outbound: 0 }) };
    const first = await arrive(false, "one");
    await first.started();
    const second = await arrive(false, "two");
    await expect(second.ended).rejects.toMatchObject({ code: "POD_BUSY", httpStatus: 503 });
    expect(pod.account.usage()).toMatchObject({ inbound: 1, opened: 1, refused: 1 });
    expect(accessLines()).toMatchObject([
      {
        reason: "POD_BUSY",
        id: "two",
        error: expect.stringContaining("POD_INBOUND_CONNECTIONS_MAX"),
      },
    ]);
    first.client.end("bytes");
    first.client.resume();
    await first.ended;
    const third = await arrive(false, "three");
    await third.started();
    expect(pod.account.usage()).toMatchObject({ inbound: 1, opened: 2, receivedBytes: 5 });
    third.client.end();
    third.client.resume();
    await third.ended;
    for (const { client } of [first, second, third]) client.destroy();
  });

  it("that lives is listed, and cut when policy turns against it; another is not", async () => {
    const plain = await arrive(false, "plain");
    const secured = await arrive(true, "secured");
    await Promise.all([plain.started(), secured.started()]);
    secured.client.write("still here");
    await once(secured.client, "data");
    expect(context.connections.summaries().map(({ id }) => id)).toEqual(["plain", "secured"]);
    mesh.policy("strict", STRICT);
    reviewConnections(context);
    await plain.ended;
    expect(accessLines()).toMatchObject([
      {
        id: "plain",
        reason: "POLICY_CHANGED",
        error: expect.stringMatching(/^connection closed due to policy change/) as string,
      },
    ]);
    secured.client.write("and still");
    await once(secured.client, "data");
    expect(context.connections.summaries().map(({ id }) => id)).toEqual(["secured"]);
    secured.client.end();
    await secured.ended;
    expect(accessLines()[1]).toMatchObject({ id: "secured", level: "info" });
  });

  it("is cut when its pod leaves, and says so", async () => {
    const { ended, started } = await arrive(true);
    await started();
    const drained = pod.drain.drain("immediate", 0);
    await context.clock.advance(0);
    await ended;
    await drained;
    expect(accessLines()).toMatchObject([{ reason: "POD_REMOVED" }]);
  });

  it("ends with its source's side though the application has not answered yet", async () => {
    vi.spyOn(pod.dialer, "connect").mockReturnValue(new Promise(() => undefined));
    const outbound = new Connection("one");
    const { ended } = await arrive(true, "one", { outbound });
    const drained = pod.drain.drain("graceful", 60_000);
    outbound.abort(new ProxyError("POD_REMOVED", "its pod left"));
    await expect(ended).rejects.toMatchObject({ code: "POD_REMOVED" });
    expect(await drained).toBe("");
  });

  it("that cannot reach the application says why", async () => {
    app.close();
    await once(app, "close");
    const port = await freePort();
    const source = mesh.get("client");
    const target = { ip: APP, port };
    await expect(
      serve(
        {
          id: "two",
          context,
          pod,
          workload: mesh.get("web"),
          path: "hbone",
          source: { ip: "10.0.0.1" as Ip, port: 4_000 },
          sourceParty: partyOfWorkload(source),
          sourceIdentity: workloadIdentity(source),
          destination: target,
          target,
        },
        () => expect.unreachable(),
      ),
    ).rejects.toMatchObject({ code: "CONNECT_FAILED", httpStatus: 503 });
  });
});

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, APP);
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
