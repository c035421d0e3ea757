// Load from inside a pod, until it is told to end (SIGTERM) or the time is over: requests on new connections,
// one after the other to each server, and connections that stay open and are spoken on all the time. Prints
// what failed and what was cut.
//   node load-client.ts SECONDS HOST...

import http from "node:http";
import net from "node:net";

const [seconds = "0", ...hosts] = process.argv.slice(2);
/** Spoken on every so often, each answer awaited this long. */
const TALK_PERIOD_MS = 20;
const ANSWER_TIMEOUT_MS = 5_000;
const REQUEST_PERIOD_MS = 5;
const LASTING_PER_HOST = 3;

const result = {
  sent: 0,
  failed: 0,
  /** Answers of somebody else than who was asked. */
  wrong: 0,
  talks: 0,
  cut: 0,
  /** The longest time without an answer, by host. */
  gapMs: {} as Record<string, number>,
  problems: [] as string[],
};
const answeredMs = new Map(hosts.map((host) => [host, performance.now()]));
let ended = false;

function problem(text: string): void {
  if (result.problems.length < 10) result.problems.push(`${new Date().toISOString()} ${text}`);
}

function answered(host: string): void {
  const now = performance.now();
  const gapMs = now - answeredMs.get(host)!;
  result.gapMs[host] = Math.max(result.gapMs[host] ?? 0, gapMs);
  answeredMs.set(host, now);
}

function request(host: string): void {
  if (ended) return;
  result.sent++;
  const again = () => setTimeout(() => request(host), REQUEST_PERIOD_MS);
  let over = false;
  const failed = (why: string) => {
    if (over) return;
    over = true;
    result.failed++;
    problem(`request to ${host}: ${why}`);
    again();
  };
  const options = { host, agent: false, timeout: ANSWER_TIMEOUT_MS };
  const sent = http.get(options, (response) => {
    let text = "";
    response.on("error", (error) => failed(error.message));
    response.on("data", (chunk: Buffer) => (text += chunk.toString()));
    response.on("end", () => {
      if (over) return;
      over = true;
      if (!text.startsWith(`${host} sees`)) result.wrong++;
      answered(host);
      again();
    });
  });
  sent.on("error", (error) => failed(error.message));
  sent.on("timeout", () => {
    failed("no answer");
    sent.destroy();
  });
}

/** An upgraded connection: what is sent comes back. */
function talk(host: string): void {
  const socket = net.connect(80, host);
  let waiting = "";
  let head = "";
  let open = false;
  let over = false;
  let timer: NodeJS.Timeout | undefined;
  const say = () => {
    if (ended || over) return void socket.destroy();
    waiting = `word ${result.talks++}.`;
    timer = setTimeout(() => cut("no answer"), ANSWER_TIMEOUT_MS);
    socket.write(waiting);
  };
  const cut = (why: string) => {
    clearTimeout(timer);
    if (ended || over) return;
    over = true;
    result.cut++;
    problem(`lasting connection ${socket.localPort} to ${host}: ${why}`);
    socket.destroy();
    setTimeout(() => talk(host), TALK_PERIOD_MS);
  };
  socket.on("error", (error) => cut(error.message));
  socket.on("close", () => cut("closed"));
  socket.write(
    `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  );
  socket.on("data", (chunk: Buffer) => {
    if (!open) {
      head += chunk.toString();
      open = head.endsWith("\r\n\r\n");
      return open ? say() : undefined;
    }
    waiting = waiting.slice(chunk.length);
    if (waiting !== "") return;
    clearTimeout(timer);
    setTimeout(say, TALK_PERIOD_MS);
  });
}

function end(): void {
  if (ended) return;
  ended = true;
  hosts.forEach(answered);
  console.log(JSON.stringify(result));
  process.exit(0);
}

for (const host of hosts) {
  request(host);
  for (let i = 0; i < LASTING_PER_HOST; i++) talk(host);
}
process.on("SIGTERM", end);
setTimeout(end, Number(seconds) * 1000);
