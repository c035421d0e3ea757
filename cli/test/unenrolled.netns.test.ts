// Pods that leave the mesh and come back while they are talked to: no request fails, no connection is
// cut before its time, and where STRICT is asked for nothing plain is served at any moment.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { type Outcome, runLoad, STRICT } from "./load.ts";
import { SHOP } from "./shop.ts";

const MODE = "istio.io/dataplane-mode";
const LOAD_S = 9;
/** The load is under way, and the mesh has had time to agree: there is no event for either. */
const PAUSE_MS = 2_500;
const SOON = { timeout: 10_000, interval: 50 };

/** Longer than two pauses, and over before a load is. */
const lab = new Lab({ UNENROLMENT_DRAIN: "5s" });

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
const meshOf = async (name: string) => (await lab.pod(name)).mesh;

async function setMode(name: string, mode: "ambient" | "none"): Promise<void> {
  await lab.must("local", "label", "pod", name, "-n", "shop", `${MODE}=${mode}`);
  const enrolled = async () => (await meshOf(name)) === "enrolled";
  await expect.poll(enrolled, SOON).toBe(mode === "ambient");
}

async function underLoad(body: () => Promise<void>): Promise<Outcome> {
  const running = runLoad(lab, LOAD_S);
  await pause();
  await body();
  return await running;
}

/** A connection from client that talks all the time; prints how it went when it is done. */
const LASTING = `
  const net = require("net");
  let answers = 0, ended = "";
  const socket = net.connect(80, "far");
  socket.write("GET / HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: echo\\r\\nConnection: Upgrade\\r\\n\\r\\n");
  socket.on("data", () => answers++);
  socket.on("error", (e) => ended = e.code);
  socket.on("close", () => ended ||= "closed");
  const started = Date.now();
  const timer = setInterval(() => {
    if (ended === "" && Date.now() - started < ${LOAD_S * 1000}) return socket.write("ping\\n");
    clearInterval(timer);
    console.log(JSON.stringify({ answers, ended, afterMs: Date.now() - started }));
    process.exit(0);
  }, 20);`;

interface Lasting {
  readonly answers: number;
  readonly ended: string;
  readonly afterMs: number;
}

describe("under load", () => {
  it.each(["near", "client"])(
    "%s leaves and comes back while it drains, and no request fails",
    async (name) => {
      const { sent, failures } = await underLoad(async () => {
        await setMode(name, "none");
        await pause();
        await setMode(name, "ambient");
      });
      expect(failures).toEqual([]);
      expect(sent).toBeGreaterThan(100);
    },
  );

  it.each([
    ["far", "node-2"],
    ["near", "node-1"],
    ["client", "node-1"],
  ])("%s leaves for good, and no request fails", async (name, node) => {
    const { sent, failures } = await underLoad(async () => {
      await setMode(name, "none");
      const log = () => lab.must("local", "logs", "cni-agent", "--node", node);
      const left = `pod left the mesh\tnamespace="shop" pod="${name}"`;
      await expect.poll(log, SOON).toContain(left);
    });
    expect(failures).toEqual([]);
    expect(sent).toBeGreaterThan(100);
    await setMode(name, "ambient");
  });

  it("a connection goes on when its pod comes back before the drain is over", async () => {
    const running = lab.exec("client.shop", process.execPath, "-e", LASTING);
    await pause();
    await setMode("far", "none");
    await setMode("far", "ambient");
    const { ended, answers } = JSON.parse(await running) as Lasting;
    expect(ended).toBe("");
    expect(answers).toBeGreaterThan(50);
  });

  it("a connection is reset, not ended, when the drain is over", async () => {
    const running = lab.exec("client.shop", process.execPath, "-e", LASTING);
    await pause();
    await setMode("client", "none");
    const { ended, afterMs } = JSON.parse(await running) as Lasting;
    expect(ended).toBe("ECONNRESET");
    expect(afterMs).toBeGreaterThan(PAUSE_MS);
    await setMode("client", "ambient");
  });
});

describe("where STRICT is asked for", () => {
  it("a client that leaves is refused until it is back, however often it goes", async () => {
    await lab.whileApplied(STRICT, async () => {
      const plain = () => lab.reach("legacy.outside", "http://far.shop/");
      await expect.poll(plain, SOON).toBe("refused");
      for (let round = 0; round < 3; round++) {
        await setMode("client", "none");
        expect(await lab.reach("client.shop", "http://far/")).toBe("refused");
        expect(await lab.reach("client.shop", "http://near/")).toBe("refused");
        await setMode("client", "ambient");
        expect(await lab.reach("client.shop", "http://far/")).toBe("reached");
        expect(await plain()).toBe("refused");
      }
    });
  });

  it("a server that comes back serves nothing plain from the moment it is enrolled", async () => {
    await lab.whileApplied(STRICT, async () => {
      const plain = () => lab.reach("legacy.outside", "http://far.shop/");
      await expect.poll(plain, SOON).toBe("refused");
      await setMode("far", "none");
      expect(await plain()).toBe("reached");
      await setMode("far", "ambient");
      expect(await plain()).toBe("refused");
    });
  });
});
