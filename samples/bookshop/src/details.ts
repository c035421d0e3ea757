// What a book is, and how many are in stock: the number comes from `stock`, a plain-TCP service that
// speaks first.

import net from "node:net";
import { serve } from "./http.ts";

const PORT = Number(process.env["PORT"] ?? 8080);
const STOCK = { host: "stock", port: 9000 };
const TIMEOUT_MS = 3_000;

serve(PORT, async () => ({
  json: { title: "The Ambient Mesh", author: "A. Node", inStock: await askStock() },
}));

/** Reads the greeting, asks for book 1, and reads the number. */
function askStock(): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(STOCK);
    let text = "";
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error("stock does not answer")));
    socket.on("error", reject);
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (text === "READY\n") socket.write("COUNT 1\n");
    });
    socket.on("end", () => {
      const count = /COUNT (\d+)/.exec(text)?.[1];
      if (count === undefined) reject(new Error("stock sent no number"));
      else resolve(Number(count));
      socket.end();
    });
  });
}
