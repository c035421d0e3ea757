import net from "node:net";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import { NetByteSocket } from "@ambit/common/net/net-byte-socket.ts";
import { bytes, TestMesh } from "../state/testing-mesh.ts";
import { HbonePeer, relayTo } from "../testing/hbone-peer.ts";
import { CLIENT_IP, OutboundLab, portOf } from "../testing/outbound-lab.ts";
import type { NameLookup } from "./host-names.ts";
import { handleSocks, NEGOTIATION_TIMEOUT_MS } from "./socks5.ts";

/** Nobody of the mesh. */
const OUTSIDE = "127.0.0.6";
const VIP = "127.0.0.2";
const GREETING = Buffer.of(5, 1, 0);
const SUCCESS = "05000001000000000000";

let lab: OutboundLab;
let mesh: TestMesh;
let socks: net.Server;

beforeEach(async () => {
  mesh = new TestMesh().workload("client", [CLIENT_IP]);
  const lookup: NameLookup = async (name) => {
    if (name !== "outside.example") throw new Error("no such name");
    return { ips: [parseIp(OUTSIDE)!], ttlSeconds: 60 };
  };
  lab = new OutboundLab(mesh, {}, { lookup });
  socks = net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
  socks.on("connection", (socket) => {
    void handleSocks(lab.context, lab.pod, new NetByteSocket(socket));
  });
  socks.listen(0, "127.0.0.1");
  await once(socks, "listening");
});
afterEach(() => {
  lab[Symbol.dispose]();
  socks.close();
});

const port = (value: number) => Buffer.of(value >> 8, value & 0xff);
const toIp = (ip: string, to: number) =>
  Buffer.concat([Buffer.of(5, 1, 0, 1), bytes(ip), port(to)]);
const toName = (name: string, to: number) =>
  Buffer.concat([Buffer.of(5, 1, 0, 3, name.length), Buffer.from(name), port(to)]);

/** A client that says something and waits for so many bytes before it goes on. */
class SocksClient {
  readonly #socket = net.connect(portOf(socks), "127.0.0.1");
  #received = Buffer.alloc(0);

  constructor() {
    this.#socket.on("error", () => undefined);
    this.#socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
    });
  }

  say(message: Buffer | string): this {
    this.#socket.write(message);
    return this;
  }

  async hear(count: number): Promise<string> {
    while (this.#received.length < count) await once(this.#socket, "data");
    const heard = this.#received.subarray(0, count).toString("hex");
    this.#received = this.#received.subarray(count);
    return heard;
  }

  /** All that comes until the other side closes. */
  async rest(): Promise<string> {
    if (!this.#socket.closed) await once(this.#socket, "close");
    return this.#received.toString("hex");
  }

  end(): this {
    this.#socket.end();
    return this;
  }

  async connect(request: Buffer): Promise<string> {
    expect(await this.say(GREETING).hear(2)).toBe("0500");
    return this.say(request).hear(10);
  }
}

/** A service `web` behind a waypoint that echoes. */
async function service(): Promise<HbonePeer> {
  mesh.workload("waypoint", ["127.0.0.3"]);
  const echo = relayTo(portOf(await lab.echo("127.0.0.1")), "127.0.0.1");
  const peer = await HbonePeer.listen("127.0.0.3", lab.certificate("waypoint"), echo);
  const destination = { case: "address" as const, value: { address: bytes("127.0.0.3") } };
  mesh.service("web", [VIP], { waypoint: { destination, hboneMtlsPort: peer.port } });
  return peer;
}

describe("an application that speaks SOCKS5", () => {
  it.each([
    ["its address", toIp(VIP, 80)],
    ["its name", toName("web", 80)],
    ["its whole name", toName("web.ns.svc.cluster.local", 80)],
  ])("reaches a service of the mesh by %s, through its waypoint", async (_, request) => {
    const peer = await service();
    const client = new SocksClient();
    expect(await client.connect(request)).toBe(SUCCESS);
    expect(await client.say("hello").hear(5)).toBe(Buffer.from("hello").toString("hex"));
    expect(peer.requests).toMatchObject([{ authority: `${VIP}:80`, peer: lab.identity("client") }]);
    await client.end().rest();
    expect(lab.lines()).toMatchObject([{ "dst.service": "web.ns.svc.cluster.local" }]);
    peer[Symbol.dispose]();
  });

  it("reaches what is outside the mesh by its name", async () => {
    const client = new SocksClient();
    const to = portOf(await lab.echo(OUTSIDE));
    expect(await client.connect(toName("outside.example", to))).toBe(SUCCESS);
    expect(await client.say("hello").hear(5)).toBe(Buffer.from("hello").toString("hex"));
    await client.end().rest();
    expect(lab.lines()).toMatchObject([{ path: "tcp", bytes_sent: 5, bytes_recv: 5 }]);
  });

  it("may say everything at once, byte by byte", async () => {
    const to = portOf(await lab.echo(OUTSIDE));
    const client = new SocksClient();
    for (const byte of Buffer.concat([GREETING, toIp(OUTSIDE, to)])) client.say(Buffer.of(byte));
    expect(await client.hear(12)).toBe(`0500${SUCCESS}`);
    await client.end().rest();
  });
});

describe("an application is told", () => {
  it.each<[string, Buffer, string, string]>([
    ["a name that nobody has", toName("ghost.example", 80), "0504", "CONNECT_FAILED"],
    ["a port where nobody listens", toIp(OUTSIDE, 1), "0501", "CONNECT_FAILED"],
    ["a port of ztunnel's own", toIp("127.0.0.1", 15_001), "0501", "SELF_CALL"],
    ["to bind", Buffer.of(5, 2, 0, 1, 0, 0, 0, 0, 0, 0), "0507", "SOCKS_FAILED"],
    ["an unknown kind of address", Buffer.of(5, 1, 0, 9, 0), "0508", "SOCKS_FAILED"],
  ])("that it asked for %s", async (_, request, reply, reason) => {
    const client = new SocksClient();
    expect(await client.connect(request)).toMatch(new RegExp(`^${reply}`));
    expect(await client.rest()).toBe("");
    expect(lab.lines()).toMatchObject([{ reason }]);
  });

  it("that it cannot authenticate", async () => {
    const client = new SocksClient().say(Buffer.of(5, 1, 2));
    expect(await client.rest()).toBe("05ff");
    expect(lab.lines()).toMatchObject([
      { reason: "SOCKS_FAILED", error: expect.stringMatching(/authenticate/) as string },
    ]);
  });
});

describe("a connection that is no SOCKS ends", () => {
  it.each<[string, Buffer, RegExp]>([
    ["of another protocol", Buffer.from("GET / HTTP/1.1\r\n\r\n"), /version 71/],
    [
      "that talks before it is answered",
      Buffer.concat([GREETING, toIp(VIP, 80), GREETING]),
      /too much/,
    ],
    ["that talks without end", Buffer.concat([GREETING, Buffer.alloc(600, 5)]), /too much/],
  ])("%s", async (_, bytes, reason) => {
    await new SocksClient().say(bytes).rest();
    expect(lab.lines()).toMatchObject([
      { reason: "SOCKS_FAILED", error: expect.stringMatching(reason) as string },
    ]);
  });

  it("that leaves", async () => {
    await new SocksClient().say(GREETING).end().rest();
    expect(lab.lines()).toMatchObject([{ reason: "SOCKS_FAILED" }]);
  });

  it("that says nothing", async () => {
    const client = new SocksClient();
    await client.say(GREETING).hear(2);
    await lab.context.clock.advance(NEGOTIATION_TIMEOUT_MS);
    await client.rest();
    expect(lab.lines()).toMatchObject([{ error: expect.stringMatching(/within 5 s/) as string }]);
  });

  it("with its pod", async () => {
    const client = new SocksClient();
    await client.say(GREETING).hear(2);
    const drained = lab.pod.drain.drain("immediate", 0);
    await lab.context.clock.advance(0);
    await client.rest();
    await drained;
    expect(lab.lines()).toMatchObject([{ reason: "POD_REMOVED" }]);
  });
});
