// `ambit local restart`: programs replaced while 500 requests a second run, on new connections and on ones
// that stay. Nothing fails, nothing is reset, and nothing goes in plain text.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { plaintextPackets, STRICT, watchForPlaintext } from "./load.ts";
import { SHOP } from "./shop.ts";

const REQUESTS_PER_SECOND = Number(process.env["LOAD_RPS"] ?? 500);
/** A restart of ztunnel starts two, one after the other; the others start one. */
const LONG_S = 20;
const SHORT_S = 9;
/** The load is under way: there is no event for that. */
const START_MS = 3_000;
/** Of the requests, one in five on a connection of its own. */
const FRESH_EVERY = 5;
/** Connections that stay, and talk all the time. */
const LASTING = 4;
/** The suite's machine has other work, too: the load is offered, not all of it is taken in time. */
const TAKEN_MIN = 0.5;

/** Longer than the load, so that what lasts is handed nowhere: it ends by itself. */
const lab = new Lab({ CONNECTION_TERMINATION_DEADLINE: "60s" });

beforeAll(async () => {
  await lab.up(SHOP + STRICT);
  await watchForPlaintext(lab);
});
afterAll(() => lab.down());

interface Outcome {
  readonly sent: number;
  readonly answered: number;
  readonly lasting: number;
  readonly failures: Readonly<Record<string, number>>;
}

const load = (seconds: number) => `
  const http = require("http"); const net = require("net");
  const endMs = Date.now() + ${seconds} * 1000;
  const result = { sent: 0, answered: 0, lasting: 0, failures: {} };
  const fail = (what) => { result.failures[what] = (result.failures[what] ?? 0) + 1; };
  const urls = ["http://near/", "http://far/"];
  const agent = new http.Agent({ keepAlive: true, maxSockets: 16, scheduling: "fifo" });
  const send = () => {
    const n = result.sent++;
    const fresh = n % ${FRESH_EVERY} === 0;
    const request = http.get(urls[n % 2], { agent: fresh ? false : agent }, (r) => {
      let body = ""; r.on("data", (c) => body += c);
      r.on("end", () => body.includes("sees") ? result.answered++ : fail(body));
      r.on("error", (e) => fail("answer " + e.code));
    });
    request.on("error", (e) => fail((fresh ? "new " : "kept ") + e.code));
  };
  const startMs = Date.now();
  const timer = setInterval(() => {
    if (Date.now() > endMs) { clearInterval(timer); agent.destroy(); return; }
    const due = (Date.now() - startMs) * ${REQUESTS_PER_SECOND} / 1000;
    // What is late is not sent all at once: that would test another thing.
    for (let i = 0; i < 20 && result.sent < due && result.sent - result.answered < 200; i++) send();
  }, 10);
  for (let i = 0; i < ${LASTING}; i++) {
    const socket = net.connect(80, i % 2 ? "near" : "far");
    socket.write("GET / HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: echo\\r\\nConnection: Upgrade\\r\\n\\r\\n");
    let over = false;
    socket.on("data", () => result.lasting++);
    socket.on("error", (e) => fail("lasting " + e.code));
    socket.on("close", () => over || fail("lasting closed"));
    const ping = setInterval(() => socket.write("ping\\n"), 20);
    setTimeout(() => { over = true; clearInterval(ping); socket.destroy(); }, ${seconds * 1000});
  }
  process.on("exit", () => console.log(JSON.stringify(result)));`;

async function underLoad(seconds: number, body: () => Promise<unknown>): Promise<Outcome> {
  const running = lab.exec("client.shop", process.execPath, "-e", load(seconds));
  await new Promise((resolve) => setTimeout(resolve, START_MS));
  await body();
  const outcome = JSON.parse(await running) as Outcome;
  expect(outcome.sent).toBeGreaterThan(REQUESTS_PER_SECOND * seconds * TAKEN_MIN);
  return outcome;
}

function expectNothingLost({ sent, answered, lasting, failures }: Outcome): void {
  expect(failures).toEqual({});
  expect(answered).toBe(sent);
  expect(lasting).toBeGreaterThan(LASTING);
}

describe("replaced under load, without one failed request or reset", () => {
  it.each([
    ["ztunnel", "node-1"],
    ["ztunnel", "node-2"],
  ])("%s on %s", async (name, node) => {
    const before = await lab.component(name, node);
    const outcome = await underLoad(LONG_S, () =>
      lab.must("local", "restart", name, "--node", node),
    );
    expectNothingLost(outcome);
    expect((await lab.component(name, node)).pid).not.toBe(before.pid);
    expect(await plaintextPackets(lab)).toEqual([0, 0]);
  });

  it.each(["cni-agent", "istiod-lite"])("%s", async (name) => {
    const outcome = await underLoad(SHORT_S, () => lab.must("local", "restart", name));
    expectNothingLost(outcome);
    expect(await plaintextPackets(lab)).toEqual([0, 0]);
  });
});

it("restart names the nodes that there are", async () => {
  const { code, stderr } = await lab.ambit("local", "restart", "ztunnel", "--node", "node-9");
  expect([code, stderr]).toEqual([1, expect.stringContaining("node-1, node-2")]);
});
