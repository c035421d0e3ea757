import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { SHOP } from "./shop.ts";

const lab = new Lab();

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

/** Windows (4 MiB a stream, 16 MiB a connection), socket buffers and the heap's breathing. */
const RSS_GROWTH_BYTES_MAX = 64 << 20;
/** Pooled tunnels stay for a while, and a busy pod keeps up to 16 sockets of a family ready to dial. */
const DESCRIPTORS_LEFT_MAX = 40;
/** A PING every 10 s, unanswered for 20 s. */
const VANISHED_PEER_MS_MAX = 35_000;

const script = (text: string) => lab.exec("client.shop", process.execPath, "-e", text);

interface Usage {
  readonly descriptors: number;
  readonly rssBytes: number;
}

async function usage(node: string): Promise<Usage> {
  const { pid } = await lab.component("ztunnel", node);
  const [, kibibytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))!;
  return {
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    rssBytes: Number(kibibytes) * 1024,
  };
}

async function openConnections(): Promise<number> {
  const text = await lab.must("ztunnel", "connections", "-o", "json");
  return (JSON.parse(text) as unknown[]).length;
}

/** Runs `load`; afterwards nothing of it may be left in either ztunnel. */
async function leavesNothing(load: () => Promise<void>): Promise<void> {
  const before = [await usage("node-1"), await usage("node-2")];
  await load();
  await expect.poll(openConnections, { timeout: 10_000 }).toBe(0);
  for (const [index, node] of ["node-1", "node-2"].entries()) {
    const limit = before[index]!.descriptors + DESCRIPTORS_LEFT_MAX;
    const descriptors = async () => (await usage(node)).descriptors;
    await expect.poll(descriptors, { timeout: 10_000 }).toBeLessThanOrEqual(limit);
  }
}

/** Echoes through `host`:9000; prints how many came back right, and what became of the others. */
const echoes = (host: string, count: number, atOnce: number) => `
  const net = require("net");
  let started = 0, right = 0, open = [];
  const one = () => {
    if (started === ${count}) return;
    const n = String(started++);
    const s = net.connect({ host: "${host}", port: 9000, allowHalfOpen: true });
    let text = "", fault = "ended early";
    const startMs = Date.now();
    s.on("data", (c) => text += c).on("error", (e) => fault = e.message);
    s.on("close", () => {
      if (text === "echo:" + n) right++;
      else console.log("connection", n, "from port", s.localPort, fault, "after", Date.now() - startMs, "ms:", text);
      if (${atOnce} === 1) one();
    });
    s.on("connect", () => {
      open.push(() => s.end(n));
      if (open.length === ${atOnce}) { for (const go of open) go(); open = []; }
    });
  };
  for (let i = 0; i < ${atOnce}; i++) one();
  process.on("exit", () => console.log(right));`;

describe("many connections", () => {
  it.each(["near", "far"])("10,000 one after another to %s leave nothing", (host) =>
    leavesNothing(async () => {
      expect(await script(echoes(host, 10_000, 1))).toBe("10000");
    }),
  );

  it.each(["near", "far"])("2,000 at once to %s leave nothing", (host) =>
    leavesNothing(async () => {
      expect(await script(echoes(host, 2_000, 2_000))).toBe("2000");
    }),
  );
});

describe("a reader that stands still", () => {
  it.each(["near", "far"])("holds the sender %s up, in bounded memory", (host) =>
    leavesNothing(async () => {
      const before = [await usage("node-1"), await usage("node-2")];
      const reading = script(`
        const mebibytes = 256;
        require("http").get("http://${host}/bytes/" + mebibytes, (r) => {
          let bytes = 0;
          r.pause();
          setTimeout(() => r.on("data", (c) => bytes += c.length).resume(), 3000);
          r.on("end", () => console.log(bytes === mebibytes << 20 ? "all" : bytes));
        });`);
      await expect.poll(openConnections, { timeout: 10_000 }).toBeGreaterThan(0);
      for (let i = 0; i < 5; i++) {
        const now = [await usage("node-1"), await usage("node-2")];
        for (const [index, { rssBytes }] of now.entries())
          expect(rssBytes - before[index]!.rssBytes).toBeLessThan(RSS_GROWTH_BYTES_MAX);
      }
      expect(await reading).toBe("all");
    }),
  );
});

describe("a peer", () => {
  /** Opens a connection to far, and prints once it has ended. */
  const waitForEnd = () =>
    script(`
      const s = require("net").connect(9000, "far", () => s.write("hello"));
      s.on("error", () => {}).on("close", () => console.log("ended"));`);

  it("that vanishes without a word is noticed, and found again when it is back", () =>
    leavesNothing(async () => {
      const ended = waitForEnd();
      await expect.poll(openConnections, { timeout: 10_000 }).toBe(2);
      const { fabric, nodes } = await lab.status();
      const { link } = nodes.find(({ name }) => name === "node-2")!;
      const setLink = (state: "up" | "down") =>
        execFileSync("ip", ["-n", fabric.netns, "link", "set", link, state]);
      const startedMs = performance.now();
      setLink("down");
      try {
        expect(await ended).toBe("ended");
        expect(performance.now() - startedMs).toBeLessThan(VANISHED_PEER_MS_MAX);
      } finally {
        setLink("up");
      }
      const line = (await lab.accessLines("node-1")).findLast((text) => text.includes(":9000"));
      expect(line).toMatch(/error="tunnel lost: the peer does not answer pings" reason=/);
      await expect
        .poll(() => lab.reach("client.shop", "http://far/"), { timeout: 20_000 })
        .toBe("reached");
    }));

  it("whose ztunnel is killed ends the connection at once; its successor serves the next", () =>
    leavesNothing(async () => {
      const ended = waitForEnd();
      await expect.poll(openConnections, { timeout: 10_000 }).toBe(2);
      process.kill((await lab.component("ztunnel", "node-2")).pid!, "SIGKILL");
      expect(await ended).toBe("ended");
      await expect
        .poll(() => lab.reach("client.shop", "http://far/"), { timeout: 20_000 })
        .toBe("reached");
    }));
});
