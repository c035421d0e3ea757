// A program in a pod that dials on request, which is much quicker than a new one each time; and its other
// end, in the test.
//   node dialer.ts   (a line "HOST PORT" for each call; the answer is "reached" or "refused")

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { createInterface, type Interface } from "node:readline";
import type { Pods } from "./load/load.ts";

/** What test-server.ts answers, over HTTP and where it speaks first. */
const ANSWER = / sees |^220 /;
/** Of the server that speaks first. */
const FIRST_PORT = 9001;
const REQUEST = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const ANSWER_TIMEOUT_MS = 5_000;

export class Dialer {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor(pods: Pods, pod: string) {
    this.#child = pods.inPod(pod, [process.execPath, import.meta.filename]);
    this.#lines = createInterface({ input: this.#child.stdout! });
  }

  /** One call at a time. */
  async reaches(host: string, port: number): Promise<boolean> {
    const answer = once(this.#lines, "line");
    this.#child.stdin!.write(`${host} ${port}\n`);
    const [line] = (await answer) as [string];
    return line === "reached";
  }

  close(): void {
    this.#child.stdin!.end();
  }
}

function dial(host: string, port: number): Promise<"reached" | "refused"> {
  const { promise, resolve } = Promise.withResolvers<"reached" | "refused">();
  const socket = net.connect(port, host).setTimeout(ANSWER_TIMEOUT_MS);
  let text = "";
  if (port !== FIRST_PORT) socket.write(REQUEST);
  socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
  socket.on("error", () => undefined);
  socket.on("timeout", () => socket.destroy());
  socket.on("close", () => resolve(ANSWER.test(text) ? "reached" : "refused"));
  return promise;
}

if (import.meta.main) {
  for await (const line of createInterface({ input: process.stdin })) {
    const [host, port] = line.split(" ");
    console.log(await dial(host!, Number(port)));
  }
}
