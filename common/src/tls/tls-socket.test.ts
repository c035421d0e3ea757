import { describe, expect, it } from "vitest";
import { bytePair } from "../net/byte-pair.ts";
import type { ByteSocket } from "../net/byte-socket.ts";
import { TestCa } from "../testing/test-ca.ts";
import { DEFAULT_TLS_POLICY } from "./tls-policy.ts";
import { HandshakeError, TlsSocket } from "./tls-socket.ts";

const ca = new TestCa();
const contextOf = (serviceAccount: string) =>
  DEFAULT_TLS_POLICY.contextFor(
    ca.issue({ trustDomain: "cluster.local", namespace: "shop", serviceAccount }),
  );
const [clientContext, serverContext] = [contextOf("client"), contextOf("server")];

/** Both ends of a connection in memory, with the sockets below them. */
function pair() {
  const [near, far] = bytePair();
  const client = new TlsSocket(near, clientContext, "client");
  const server = new TlsSocket(far, serverContext, "server");
  return { client, server, near, far };
}

/** What an end hears, in order; bytes joined. */
function recorded(socket: ByteSocket): string[] {
  const heard: string[] = [];
  socket.handler = {
    onBytes: (bytes) => void heard.push(bytes.toString()),
    onEnd: () => void heard.push("end"),
    onWritable: () => void heard.push("writable"),
    onClose: (error) => void heard.push(`close ${error?.message ?? "well"}`),
  };
  return heard;
}

const settled = async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};

async function agreed() {
  const ends = pair();
  await Promise.all([ends.client.secure(), ends.server.secure()]);
  return { ...ends, atClient: recorded(ends.client), atServer: recorded(ends.server) };
}

describe("a TLS socket", () => {
  it("carries bytes both ways, ends each way on its own and closes when both have ended", async () => {
    const { client, server, atClient, atServer } = await agreed();
    client.resume();
    server.resume();
    client.write(Buffer.from("question"));
    client.end();
    await settled();
    server.write(Buffer.from("answer"));
    await settled();
    expect([atClient, atServer]).toEqual([["answer"], ["question", "end"]]);
    server.end();
    await settled();
    expect(atClient).toEqual(["answer", "end", "close well"]);
    expect(atServer).toEqual(["question", "end", "close well"]);
  });

  it("delivers what came with the end of the handshake once it is resumed", async () => {
    const { client, server } = pair();
    const secured = server.secure();
    await client.secure();
    client.write(Buffer.from("early"));
    client.end();
    await secured;
    const heard = recorded(server);
    await settled();
    expect(heard).toEqual([]);
    server.resume();
    await settled();
    expect(heard).toEqual(["early", "end"]);
    server.destroy();
  });

  it("writes more than a piece in order", async () => {
    const { client, server, atServer } = await agreed();
    server.resume();
    const bytes = Buffer.alloc(3 * 64 * 1024 + 5, "0123456789");
    client.write(bytes);
    await settled();
    expect(atServer.join("")).toBe(bytes.toString());
    client.destroy();
  });

  it("tells who writes that there is no room, and when there is", async () => {
    const { client, server, atClient } = await agreed();
    expect(client.write(Buffer.alloc(300 * 1024))).toBe(false);
    server.resume();
    await settled();
    expect(atClient).toEqual(["writable"]);
    client.destroy();
  });

  it("closes with what OpenSSL says when the peer sends no records", async () => {
    const { server, near, atServer, client } = await agreed();
    server.resume();
    near.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
    client.resume();
    await settled();
    expect(atServer).toEqual([expect.stringMatching(/^close .*(record|version)/)]);
    expect(server.write(Buffer.from("more"))).toBe(true);
  });
});

describe("a handshake", () => {
  it.each(["destroy", "reset"] as const)("fails when the peer closes in it (%s)", async (how) => {
    const { client, far } = pair();
    const failed = client.secure();
    far[how]();
    await expect(failed).rejects.toThrow(HandshakeError);
    expect(client.destroyed).toBe(true);
  });

  it("fails when the peer ends in it", async () => {
    const [near, far] = bytePair();
    const client = new TlsSocket(near, clientContext, "client");
    far.end();
    await expect(client.secure()).rejects.toThrow("the peer closed during the TLS handshake");
  });

  it.each(["before", "just before", "in"])(
    "fails when the socket is closed %s it",
    async (when) => {
      const [near] = bytePair();
      if (when === "before") near.destroy();
      await settled();
      const client = new TlsSocket(near, clientContext, "client");
      if (when === "just before") near.destroy();
      const failed = client.secure();
      if (when === "in") client.destroy();
      await expect(failed).rejects.toThrow(HandshakeError);
      await settled();
    },
  );
});
