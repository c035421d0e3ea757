import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { jsonReply, type Routes, startHttpServer, textReply } from "./http-server.ts";

const routes: Routes = {
  "GET /text": ({ query }) => textReply(`level ${query.get("level")}\n`),
  "POST /json": () => jsonReply({ a: 1 }),
  "GET /broken": () => {
    throw new Error("it broke");
  },
};

async function withServer(use: (port: number) => Promise<void>): Promise<void> {
  const server = await startHttpServer({ host: "127.0.0.1", port: 0, routes });
  try {
    await use(server.port);
  } finally {
    await server.close();
  }
}

/** Sends bytes as they are and returns the status line. */
async function rawStatus(port: number, request: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  socket.end(request);
  await once(socket, "close");
  return text.slice(0, text.indexOf("\r\n"));
}

describe("the HTTP server", () => {
  it.each([
    ["GET", "/text?level=debug", 200, "level debug\n"],
    ["POST", "/json", 200, '{\n  "a": 1\n}\n'],
    ["GET", "/json", 405, "method not allowed\n"],
    ["GET", "/none", 404, "not found\n"],
    ["GET", "/broken", 500, "it broke\n"],
  ])("answers %s %s with %i", async (method, path, status, body) => {
    await withServer(async (port) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
      expect([response.status, await response.text()]).toEqual([status, body]);
    });
  });

  it.each([
    ["a target that is no URL", "GET // HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "400"],
    ["a head above 8 KiB", `GET /text HTTP/1.1\r\nhost: ${"a".repeat(9000)}\r\n\r\n`, "431"],
    ["garbage", "\u0000\u0001\r\n\r\n", "400"],
  ])("survives %s", async (_what, request, status) => {
    await withServer(async (port) => {
      expect(await rawStatus(port, request)).toContain(` ${status} `);
      expect((await fetch(`http://127.0.0.1:${port}/text`)).status).toBe(200);
    });
  });

  it("names the port that is taken", async () => {
    await withServer(async (port) => {
      await expect(startHttpServer({ host: "127.0.0.1", port, routes })).rejects.toThrow(
        `cannot listen on 127.0.0.1:${port}: it is in use`,
      );
    });
  });
});
