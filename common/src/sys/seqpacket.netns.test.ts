import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  connectSeqpacket,
  listenSeqpacket,
  PACKET_BYTES_MAX,
  type SeqpacketListener,
  SeqpacketSocket,
} from "./seqpacket.ts";

let folder: string;
let path: string;
let listener: SeqpacketListener;

/** Collects what one end sees. */
class End {
  readonly packets: Buffer[] = [];
  readonly fds: number[] = [];
  closed: string | undefined;
  readonly handlers = {
    onPacket: (packet: Buffer, fds: readonly number[]) => {
      this.packets.push(packet);
      this.fds.push(...fds);
    },
    onClose: (reason: string) => void (this.closed = reason),
  };
}

async function pair() {
  const server = new End();
  const client = new End();
  const accepted = Promise.withResolvers<SeqpacketSocket>();
  listener = listenSeqpacket(path, (fd) =>
    accepted.resolve(new SeqpacketSocket(fd, server.handlers)),
  );
  const clientSocket = connectSeqpacket(path, client.handlers);
  return { server, client, clientSocket, serverSocket: await accepted.promise };
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-seqpacket-"));
  path = join(folder, "socket");
});

afterEach(() => {
  listener?.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("SEQPACKET sockets", () => {
  it("keep packets apart, both ways", async () => {
    const { server, client, clientSocket, serverSocket } = await pair();
    clientSocket.send(Buffer.from("one"));
    clientSocket.send(Buffer.from("two"));
    await expect.poll(() => server.packets.map(String)).toEqual(["one", "two"]);
    serverSocket.send(Buffer.from("answer"));
    await expect.poll(() => client.packets.map(String)).toEqual(["answer"]);
    clientSocket.close();
    await expect.poll(() => server.closed).toContain("closed");
  });

  it("pass a descriptor that names the same file", async () => {
    const { client, clientSocket, serverSocket } = await pair();
    const fd = openSync("/proc/self/ns/net", "r");
    serverSocket.send(Buffer.from("netns"), fd);
    await expect.poll(() => client.fds).toHaveLength(1);
    expect(fstatSync(client.fds[0]!).ino).toBe(fstatSync(fd).ino);
    closeSync(client.fds[0]!);
    closeSync(fd);
    clientSocket.close();
    serverSocket.close();
  });

  it("take a packet of the maximum size and end at one byte more", async () => {
    const { server, clientSocket } = await pair();
    clientSocket.send(Buffer.alloc(PACKET_BYTES_MAX));
    await expect.poll(() => server.packets.length).toBe(1);
    clientSocket.send(Buffer.alloc(PACKET_BYTES_MAX + 1));
    await expect.poll(() => server.closed).toContain("exceeded 1024");
    clientSocket.close();
  });

  it("leave no descriptor behind", async () => {
    const open = () => readdirSync("/proc/self/fd").length;
    (await pair()).clientSocket.close();
    listener.close();
    await expect.poll(open).toBeGreaterThan(0);
    const before = open();
    for (let i = 0; i < 20; i++) {
      const { server, clientSocket } = await pair();
      clientSocket.close();
      await expect.poll(() => server.closed).toBeDefined();
      listener.close();
    }
    expect(open()).toBeLessThanOrEqual(before);
  });

  it("say which path cannot be reached", () => {
    expect(() => connectSeqpacket(join(folder, "nobody"), new End().handlers)).toThrow(
      /nobody: ENOENT/,
    );
  });
});
