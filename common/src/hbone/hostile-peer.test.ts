import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { afterEach, describe, expect, it } from "vitest";
import { asByteSocket } from "../net/net-byte-socket.ts";
import { frame, requestFrame } from "../testing/http2-peer.ts";
import { TestCa } from "../testing/test-ca.ts";
import { FakeClock } from "../testing/fake-clock.ts";
import { hpackEncode } from "../http2/hpack-encoder.ts";
import { CLIENT_PREFACE, ErrorCode, Flag } from "../http2/protocol.ts";
import { HANDSHAKE_TIMEOUT_MS, secureServer, type SecureResult } from "../tls/secure.ts";
import { HboneClientConnection } from "./client.ts";
import { CONNECT_ANSWER_TIMEOUT_MS, DEFAULT_HBONE_SETTINGS, SERVER_LIMITS } from "./limits.ts";
import { type ConnectRequest, HboneServerConnection } from "./server.ts";

const settings = DEFAULT_HBONE_SETTINGS;
const cleanups: (() => void)[] = [];
afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));

/** Two connected sockets over loopback. */
async function socketPair(): Promise<[near: net.Socket, far: net.Socket]> {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const near = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1");
  const [[far]] = (await Promise.all([once(server, "connection"), once(near, "connect")])) as [
    [net.Socket],
    unknown,
  ];
  server.close();
  for (const socket of [near, far]) {
    socket.on("error", () => undefined);
    cleanups.push(() => socket.destroy());
  }
  return [near, far];
}

/** An HBONE server whose client writes frames by hand. */
async function attackedServer() {
  const [attacker, socket] = await socketPair();
  const clock = new FakeClock();
  const requests: ConnectRequest[] = [];
  let closedBecause: string | undefined;
  const connection = new HboneServerConnection(asByteSocket(socket), {
    settings,
    clock,
    onConnect: (request) => void requests.push(request),
    onClose: (reason) => void (closedBecause = reason),
  });
  cleanups.push(() => connection.destroy());
  attacker.on("data", () => undefined);
  attacker.write(Buffer.concat([CLIENT_PREFACE, frame("SETTINGS", 0, 0)]));
  return { attacker, connection, requests, clock, closed: () => closedBecause };
}

describe("an HBONE server", () => {
  it("lets a peer have its streams and not one more", async () => {
    const { attacker, connection, requests } = await attackedServer();
    for (let i = 0; i <= SERVER_LIMITS.streamsMax; i++) attacker.write(requestFrame(2 * i + 1));
    await expect.poll(() => requests.length).toBe(SERVER_LIMITS.streamsMax);
    attacker.write(frame("RST_STREAM", 0, 1, Buffer.from([0, 0, 0, 8])));
    attacker.write(requestFrame(2 * SERVER_LIMITS.streamsMax + 3));
    await expect.poll(() => requests.length).toBe(SERVER_LIMITS.streamsMax + 1);
    expect(connection.activeStreams).toBe(SERVER_LIMITS.streamsMax);
  });

  it.each([
    ["a path", [":path", "/"]],
    ["an upper-case name", ["X", "1"]],
    ["a line break in a value", ["baggage", "a\r\nb"]],
  ])("resets a CONNECT with %s and serves the next", async (_, [name, value]) => {
    const { attacker, requests } = await attackedServer();
    const fields = [
      { name: ":method", value: "CONNECT" },
      { name: ":authority", value: "10.0.0.1:80" },
      { name: name!, value: value! },
    ];
    attacker.write(frame("HEADERS", Flag.END_HEADERS, 1, hpackEncode(fields)));
    attacker.write(requestFrame(3));
    await expect.poll(() => requests.length).toBe(1);
    expect(requests[0]!.authority).toBe("10.0.0.1:80");
  });

  it("holds no more than a stream's window of bytes that come before the answer", async () => {
    const { attacker, requests, closed } = await attackedServer();
    attacker.write(requestFrame(1));
    const chunk = frame("DATA", 0, 1, Buffer.alloc(settings.frameBytesMax - 9));
    for (let bytes = 0; bytes <= settings.streamWindowBytes; bytes += chunk.length) {
      attacker.write(chunk);
    }
    await expect.poll(() => requests[0]?.aborted).toBe(true);
    expect(closed()).toBeUndefined();
  });

  it("drops a peer that connects and says nothing, at its keepalive's end", async () => {
    const { clock, closed } = await attackedServer();
    await clock.advance(10_000 + 20_000);
    expect(closed()).toBe("the peer does not answer pings");
  });
});

describe("an HBONE client", () => {
  async function clientOf(answer: (far: net.Socket) => void) {
    const [near, far] = await socketPair();
    const clock = new FakeClock();
    far.once("data", () => answer(far));
    far.on("data", () => undefined);
    const client = new HboneClientConnection(asByteSocket(near), { settings, clock });
    cleanups.push(() => client.close());
    const opening = client.openTunnel({ authority: "10.0.0.1:80", headers: {} });
    opening.catch(() => undefined);
    return { client, clock, opening };
  }
  const hello = frame("SETTINGS", 0, 0);
  const headers = (...fields: [string, string][]) =>
    frame(
      "HEADERS",
      Flag.END_HEADERS,
      1,
      hpackEncode(fields.map(([name, value]) => ({ name, value }))),
    );

  it.each<[string, Buffer[], string]>([
    ["no status", [headers(["a", "b"])], "malformed answer to CONNECT: :status is missing"],
    [
      "a status of letters",
      [headers([":status", "abc"])],
      "malformed answer to CONNECT: :status is",
    ],
    [
      "a reset",
      [frame("RST_STREAM", 0, 1, Buffer.from([0, 0, 0, ErrorCode.REFUSED_STREAM]))],
      "CONNECT failed: REFUSED_STREAM",
    ],
    [
      "a pushed stream",
      [frame("PUSH_PROMISE", Flag.END_HEADERS, 1, Buffer.alloc(4))],
      "CONNECT failed: PROTOCOL_ERROR: PUSH_PROMISE though push is disabled",
    ],
    ["another protocol", [Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")], "CONNECT failed"],
  ])("that gets %s says so", async (_, answer, message) => {
    const { opening } = await clientOf((far) => far.write(Buffer.concat([hello, ...answer])));
    await expect(opening).rejects.toThrow(message);
  });

  it("waits through interim answers", async () => {
    const { opening } = await clientOf((far) => {
      far.write(Buffer.concat([hello, headers([":status", "103"]), headers([":status", "200"])]));
    });
    expect((await opening).status).toBe(200);
  });

  it("does not wait for ever, and keeps no stream", async () => {
    const { client, clock, opening } = await clientOf((far) => far.write(hello));
    await clock.advance(CONNECT_ANSWER_TIMEOUT_MS);
    await expect(opening).rejects.toThrow("no answer to CONNECT within 20 s");
    expect(client.activeStreams).toBe(0);
  });

  it("hears at once when the peer vanishes", async () => {
    const { opening } = await clientOf((far) => far.resetAndDestroy());
    await expect(opening).rejects.toThrow(/CONNECT failed|tunnel is closing/);
  });
});

describe("a TLS handshake that never ends", () => {
  const ca = new TestCa();
  const IDENTITY = { trustDomain: "cluster.local", namespace: "a", serviceAccount: "b" };

  async function handshakeWith(attack: (socket: net.Socket) => void): Promise<SecureResult> {
    const [attacker, raw] = await socketPair();
    const certificate = ca.issue(IDENTITY);
    const result = secureServer(asByteSocket(raw), certificate);
    attack(attacker);
    const settled = await result;
    expect(raw.destroyed).toBe(true);
    return settled;
  }

  it.each<[string, (socket: net.Socket) => void, string]>([
    ["half-closed at once", (socket) => socket.end(), "closed during the TLS handshake"],
    ["reset", (socket) => socket.resetAndDestroy(), ""],
    ["plain text", (socket) => socket.write("GET / HTTP/1.1\r\n\r\n"), ""],
    [
      "half a record, then FIN",
      (socket) => socket.end(Buffer.from("1603010200010001fc", "hex")),
      "",
    ],
  ])("by %s leaves nothing open", async (_, attack, reason) => {
    const result = await handshakeWith(attack);
    expect(result).toMatchObject({ ok: false, reason: expect.stringContaining(reason) });
  });

  it("by a client without certificate is refused", async () => {
    const result = await handshakeWith((socket) => {
      tls.connect({ socket, rejectUnauthorized: false, ALPNProtocols: ["h2"] }).on("error", () => {
        // It is refused: that is the point.
      });
    });
    expect(result).toMatchObject({ ok: false, code: "HANDSHAKE" });
  });

  it(
    "by silence ends after its time",
    async () => {
      const result = await handshakeWith(() => undefined);
      expect(result).toMatchObject({ ok: false, code: "TIMEOUT" });
    },
    HANDSHAKE_TIMEOUT_MS + 5000,
  );
});
