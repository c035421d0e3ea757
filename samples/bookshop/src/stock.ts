// A plain-TCP service that greets first: READY, then `COUNT <book>` is answered with a number.

import net from "node:net";

const PORT = Number(process.env["PORT"] ?? 9000);

net
  .createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.write("READY\n");
    socket.on("data", (chunk) => {
      if (chunk.toString().startsWith("COUNT")) socket.end(`COUNT ${10 + (Date.now() % 90)}\n`);
    });
  })
  .listen(PORT, () => console.log(`listening on ${PORT}`));
