// What each pod costs the ztunnel of its node, seen from outside; and a busy pod that is held at its bound
// while its neighbours are served.

import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

const CONNECTIONS_MAX = 20;
const TRIED = 50;
const HELD_MS = 6_000;

const lab = new Lab({
  POD_OUTBOUND_CONNECTIONS_MAX: String(CONNECTIONS_MAX),
  ZTUNNEL_WORKER_THREADS: "1",
});

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

interface PodRow {
  readonly pod: string;
  readonly inbound: string;
  readonly outbound: string;
  readonly opened: string;
  readonly refused: string;
  readonly sent: string;
}

async function podRow(name: string, node: string): Promise<PodRow> {
  const rows = JSON.parse(await lab.must("ztunnel", "pods", "--node", node, "-o", "json"));
  return (rows as PodRow[]).find(({ pod }) => pod === `${name}.shop`)!;
}

/** Opens connections and holds them; prints how many were still open after a while. */
const GREED = `
  const net = require("net");
  let open = 0;
  for (let i = 0; i < ${TRIED}; i++) {
    const socket = net.connect(9000, "far").on("error", () => {});
    socket.on("connect", () => { open++; socket.write("x"); });
    socket.on("close", () => open--);
  }
  setTimeout(() => { console.log(open); process.exit(0); }, ${HELD_MS});`;

it("a busy pod is held at its bound, says so, and its neighbours do not notice", async () => {
  const before = await podRow("client", "node-1");
  const greedy = lab.exec("client.shop", process.execPath, "-e", GREED);
  await expect
    .poll(async () => (await podRow("client", "node-1")).outbound, SOON)
    .toBe(String(CONNECTIONS_MAX));
  expect(await lab.reach("near.shop", "http://far/")).toBe("reached");
  expect(await greedy).toBe(String(CONNECTIONS_MAX));
  const after = await podRow("client", "node-1");
  expect(Number(after.refused) - Number(before.refused)).toBe(TRIED - CONNECTIONS_MAX);
  await expect.poll(async () => (await podRow("client", "node-1")).outbound, SOON).toBe("0");
  expect(await lab.reach("client.shop", "http://near/")).toBe("reached");
  const lines = await lab.accessLines("node-1");
  expect(lines.some((line) => line.includes("POD_BUSY"))).toBe(true);
});

it("bytes and connections of a pod are told by table and metrics alike", async () => {
  await lab.get("near.shop", "http://far/");
  const row = await podRow("far", "node-2");
  expect(Number(row.opened)).toBeGreaterThan(0);
  expect(row.sent).toMatch(/^[\d.]+ (B|KiB)$/);
  const table = await lab.must("ztunnel", "pods", "--node", "node-2");
  expect(table).toMatch(/^NODE +POD +INBOUND +OUTBOUND +OPENED +REFUSED +SENT +RECEIVED +CPU/);
});
