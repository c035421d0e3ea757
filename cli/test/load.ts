// Load on a local mesh, from a pod of it: requests one after another to several URLs, and when nothing
// worked for how long. And a watch for packets between the pods of the load that no tunnel carries.

import { execFileSync } from "node:child_process";
import { availableParallelism, loadavg } from "node:os";
import type { Lab } from "./lab.ts";

export const URLS = ["http://near/", "http://far/"];

/** A time in which no request to a URL succeeded, by the machine's clock. */
export interface Gap {
  readonly url: string;
  readonly fromMs: number;
  readonly toMs: number;
}

export interface Outcome {
  readonly sent: number;
  readonly failed: number;
  /** What became of the first that failed. */
  readonly failures: readonly string[];
  /** The longest of each URL, however short. */
  readonly gapMs: Readonly<Record<string, number>>;
  /** All that are longer than GAP_MIN_MS, in order. */
  readonly gaps: readonly Gap[];
}

/** A busy machine may take this long for one request although nothing is wrong. */
const GAP_MIN_MS = 300;
const REQUEST_TIMEOUT_MS = 3_000;
const PAUSE_MS = 5;
const FAILURES_TOLD = 10;

/** Requests on a new connection each; prints an Outcome after `seconds`. */
function program(seconds: number): string {
  return `
  const http = require("http");
  const end = Date.now() + ${seconds} * 1000;
  const result = { sent: 0, failed: 0, failures: [], gapMs: {}, gaps: [] };
  const loop = (url) => {
    let lastMs = Date.now();
    const gap = (now) => {
      result.gapMs[url] = Math.max(result.gapMs[url] ?? 0, now - lastMs);
      if (now - lastMs > ${GAP_MIN_MS}) result.gaps.push({ url, fromMs: lastMs, toMs: now });
      lastMs = now;
    };
    const done = (ok, why) => {
      const now = Date.now();
      if (!ok && result.failed++ < ${FAILURES_TOLD}) {
        result.failures.push(new Date().toISOString() + " " + url + " " + why);
      }
      if (ok || now >= end) gap(now);
      if (now < end) setTimeout(next, ${PAUSE_MS});
    };
    const next = () => {
      result.sent++;
      let over = false;
      const once = (ok, why) => { if (!over) { over = true; done(ok, why); } };
      http.get(url, { agent: false, timeout: ${REQUEST_TIMEOUT_MS} }, (r) => {
        let body = ""; r.on("data", (c) => body += c);
        r.on("end", () => once(body.includes("sees"), body));
        r.on("error", (e) => once(false, "answer " + e.code));
      }).on("error", (e) => once(false, e.syscall + " " + e.code)).on("timeout", function () { this.destroy(); });
    };
    next();
  };
  ${JSON.stringify(URLS)}.forEach(loop);
  process.on("exit", () => console.log(JSON.stringify(result)));`;
}

/** Runs the load in client.shop. */
export async function runLoad(lab: Lab, seconds: number): Promise<Outcome> {
  const text = await lab.exec("client.shop", process.execPath, "-e", program(seconds));
  return JSON.parse(text) as Outcome;
}

const TABLE = `
table inet plaintext {
  counter seen { }
  chain forward {
    type filter hook forward priority 0;
    ip saddr CLIENT ip daddr { SERVERS } tcp dport != 15008 counter name seen
    ip saddr { SERVERS } ip daddr CLIENT tcp sport != 15008 counter name seen
  }
}`;

async function nodeNetns(lab: Lab): Promise<string[]> {
  return (await lab.status()).nodes.map(({ netns }) => netns);
}

/** From now on counts, between the pods of the load, every packet on a node that is not of a tunnel. */
export async function watchForPlaintext(lab: Lab): Promise<void> {
  const servers = await Promise.all(["near", "far"].map((name) => lab.ipOf(name)));
  const input = TABLE.replaceAll("CLIENT", await lab.ipOf("client")).replaceAll(
    "SERVERS",
    servers.join(", "),
  );
  for (const netns of await nodeNetns(lab)) {
    execFileSync("ip", ["netns", "exec", netns, "nft", "-f", "-"], { input });
  }
}

/** What was counted, on each node. */
export async function plaintextPackets(lab: Lab): Promise<number[]> {
  return (await nodeNetns(lab)).map((netns) => {
    const args = ["netns", "exec", netns, "nft", "list", "counters", "table", "inet", "plaintext"];
    const [, packets] = /packets (\d+) /.exec(execFileSync("ip", args, { encoding: "utf8" }))!;
    return Number(packets);
  });
}

/**
 * How many programs want each processor now, at least 1: coming back after a kill is starting a program,
 * and that takes so much longer.
 */
export function slowness(): number {
  return Math.max(1, loadavg()[0]! / availableParallelism());
}

/** Kills one program of the mesh without warning; its supervisor starts it again. */
export async function kill(lab: Lab, name: string, node?: string): Promise<void> {
  const { pid } = await lab.component(name, node);
  process.kill(pid!, "SIGKILL");
}

/** Every plain connection to a pod of the namespace is refused. */
export const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
---`;
