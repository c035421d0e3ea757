// One ztunnel process takes over from another on the same node while traffic runs. Nothing may be
// refused, reset or lost: neither what is new, nor what lasts, nor DNS.

import { createSocket } from "node:dgram";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import { udpSocket } from "@ambit/common/sys/sockets.ts";
import { FakeAgent, type Payload, SNAPSHOT } from "../src/testing/fake-agent.ts";
import { APP_PORT, Lab, type Ztunnel } from "./lab.ts";
import { Load } from "./load.ts";

type PodSide = "client" | "server";

const HANDOVERS = 2;
const SERVICE = `
services:
- name: echo
  namespace: default
  hostname: echo.default.svc.cluster.local
  vips: [/10.96.0.1]
  ports: { ${APP_PORT}: ${APP_PORT} }
`;

let lab: Lab;
const nodes: Node[] = [];

beforeEach(() => {
  lab = new Lab();
  lab.echo();
});
afterEach(() => {
  for (const node of nodes.splice(0)) node.agent.close();
  lab[Symbol.dispose]();
});

let processes = 0;

/** A node of the mesh: its agent, its pods, and the ztunnels that serve them one after the other. */
class Node {
  readonly name: string;
  readonly agent: FakeAgent;
  readonly #sides: readonly PodSide[];
  readonly #env: Readonly<Record<string, string>>;
  current: Ztunnel | undefined;

  constructor(name: string, sides: readonly PodSide[], env: Readonly<Record<string, string>> = {}) {
    this.name = name;
    this.#sides = sides;
    this.#env = env;
    this.agent = new FakeAgent(join(lab.folder, `${name}.sock`));
    nodes.push(this);
  }

  /** Starts a ztunnel that serves the node's pods, next to the one that may be there. */
  async start(mesh: string): Promise<void> {
    const port = 16_000 + 10 * processes++;
    const connections = this.agent.connections;
    this.current = lab.ztunnel("node", {
      NODE_NAME: this.name,
      INPOD_UDS: join(lab.folder, `${this.name}.sock`),
      LOCAL_XDS_PATH: mesh,
      CONNECTION_TERMINATION_DEADLINE: "1h",
      ADMIN_PORT: String(port),
      STATS_PORT: String(port + 1),
      READINESS_PORT: String(port + 2),
      ...this.#env,
    });
    await this.agent.connected(connections + 1);
    for (const side of this.#sides) expect(await this.agent.send(add(side), lab.fd(side))).toBe("");
    expect(await this.agent.send(SNAPSHOT)).toBe("");
  }

  /** A successor comes, then the present one is asked to go. Resolves with the latter, draining. */
  async handOver(mesh: string): Promise<Ztunnel> {
    const before = this.current!;
    await this.start(mesh);
    before.signal("SIGTERM");
    await before.line({ message: "draining" });
    return before;
  }
}

const add = (side: PodSide): Payload => ({
  case: "add",
  value: {
    uid: `uid-${side}`,
    workloadInfo: { name: side, namespace: "default", serviceAccount: side },
  },
});

/** Hands over again and again under load; every predecessor must end by itself, with 0. */
async function handOverUnderLoad(mesh: string, node: Node): Promise<Load> {
  const load = new Load(() => lab.connect(), { fresh: 4, lasting: 4 });
  await load.more(50, 50);
  const leaving: Ztunnel[] = [];
  for (let i = 0; i < HANDOVERS; i++) {
    leaving.push(await node.handOver(mesh));
    await load.more(50, 50);
  }
  await load.stop();
  for (const ztunnel of leaving) expect(await ztunnel.exited).toBe(0);
  return load;
}

describe("a ztunnel that takes over from another under load", () => {
  it.each([["local"], ["hbone"]])("loses nothing between pods of one node (%s)", async (mode) => {
    const mesh = lab.writeMesh({ client: "one", server: "one" }, SERVICE);
    const node = new Node("one", ["client", "server"], { SAME_NODE: mode });
    await node.start(mesh);
    expect((await handOverUnderLoad(mesh, node)).failures).toEqual([]);
  });

  it.each([
    ["the client's", 0],
    ["the server's", 1],
  ])("loses nothing between two nodes when it is %s", async (_whose, index) => {
    const mesh = lab.writeMesh({ client: "one", server: "two" }, SERVICE);
    const both = [new Node("one", ["client"]), new Node("two", ["server"])];
    for (const node of both) await node.start(mesh);
    expect((await handOverUnderLoad(mesh, both[index]!)).failures).toEqual([]);
  });

  it("loses nothing with several workers on both sides", async () => {
    const mesh = lab.writeMesh({ client: "one", server: "one" }, SERVICE);
    const workers = { ZTUNNEL_WORKER_THREADS: "2" };
    const node = new Node("one", ["client", "server"], workers);
    await node.start(mesh);
    expect((await handOverUnderLoad(mesh, node)).failures).toEqual([]);
  });

  it("leaves no DNS query without an answer", async () => {
    const mesh = lab.writeMesh({ client: "one", server: "one" }, SERVICE);
    const node = new Node("one", ["client", "server"]);
    await node.start(mesh);
    const stop = new AbortController();
    const asked = ask("echo.default.svc.cluster.local", stop.signal);
    const leaving = [];
    for (let i = 0; i < HANDOVERS; i++) leaving.push(await node.handOver(mesh));
    for (const ztunnel of leaving) expect(await ztunnel.exited).toBe(0);
    stop.abort();
    const { answered, lost } = await asked;
    expect(lost).toBe(0);
    expect(answered).toBeGreaterThan(100);
  });
});

describe("a ztunnel that leaves without a successor", () => {
  it("cuts at the deadline what lasts, and ends with 0", async () => {
    const mesh = lab.writeMesh({ client: "one", server: "one" });
    const node = new Node("one", ["client", "server"], {
      CONNECTION_TERMINATION_DEADLINE: "300ms",
    });
    await node.start(mesh);
    const load = new Load(() => lab.connect(), { fresh: 0, lasting: 3 });
    await load.more(0, 30);
    const startMs = performance.now();
    node.current!.signal("SIGTERM");
    await node.current!.line({ message: "draining" });
    await load.more(0, 10);
    expect(load.failures).toEqual([]);
    expect(await node.current!.exited).toBe(0);
    expect(performance.now() - startMs).toBeGreaterThan(299);
    await load.stop();
    expect(load.failures).toHaveLength(3);
  });
});

const ANSWER_TIMEOUT_MS = 1_000;

/** Asks the client's DNS proxy the same thing, each time from another port, until told to stop. */
async function ask(name: string, signal: AbortSignal) {
  const counts = { answered: 0, lost: 0 };
  const labels = name.split(".").map((label) => [label.length, ...Buffer.from(label)]);
  const query = Buffer.from([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels.flat(), 0, 0, 1, 0, 1]);
  while (!signal.aborted) {
    const socket = createSocket("udp4");
    const listening = once(socket, "listening");
    socket.bind({
      fd: udpSocket(lab.fd("client"), { address: { ip: "127.0.0.1" as Ip, port: 0 } }),
    });
    await listening;
    const answered = once(socket, "message", { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    socket.send(query, 15_053, "127.0.0.1");
    await answered.then(
      () => counts.answered++,
      () => counts.lost++,
    );
    socket.close();
  }
  return counts;
}
