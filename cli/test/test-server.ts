// What runs in the pods of the acceptance tests. Over HTTP on 8080 it says who it is and whom it sees,
// hashes and makes bodies, and upgrades; 9000 echoes once the client has ended; 9001 speaks first.

import { createHash } from "node:crypto";
import http from "node:http";
import net from "node:net";
import { pipeline, Readable } from "node:stream";

const CHUNK = Buffer.alloc(1 << 20, "ambit");

function* bytes(mebibytes: number): Generator<Buffer> {
  for (let i = 0; i < mebibytes; i++) yield CHUNK;
}

function answer(request: http.IncomingMessage, response: http.ServerResponse): void {
  const url = request.url ?? "/";
  if (url === "/sum") {
    const hash = createHash("sha256");
    request.on("data", (chunk: Buffer) => hash.update(chunk));
    request.on("end", () => response.end(hash.digest("hex")));
  } else if (url.startsWith("/bytes/")) {
    pipeline(Readable.from(bytes(Number(url.slice("/bytes/".length)))), response, () => undefined);
  } else {
    const peer = request.socket.remoteAddress?.replace("::ffff:", "");
    response.end(`${process.env["NAME"]} sees ${peer}`);
  }
}

http
  .createServer(answer)
  .on("upgrade", (_, socket) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\n");
    socket.write("Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    // Some tests cut it.
    socket.on("error", () => socket.destroy());
    socket.pipe(socket);
  })
  .listen(8080, "::");
net
  .createServer({ allowHalfOpen: true }, (socket) => {
    let text = "";
    socket.on("data", (chunk) => (text += chunk.toString()));
    socket.on("end", () => socket.end(`echo:${text}`));
  })
  .listen(9000, "::");
net.createServer((socket) => socket.end("220 first\n")).listen(9001, "::");
