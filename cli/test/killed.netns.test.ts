// Every program of the mesh killed, or frozen, at any moment while traffic runs: how soon things are as
// before, and that nothing goes out in plain text meanwhile. The namespace is STRICT throughout.

import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { pod, service, SHOP } from "./shop.ts";

/** Two seconds where nothing else runs; the suite's machine has other work, too. */
const RECOVERY_MAX_MS = 2_000;
const BUSY_MACHINE = 3;
/** For the pauses before the blow: no phase of the mesh's work is favoured. */
const PAUSE_MAX_MS = 300;
const LOAD_S = 7;
const SOON = { timeout: 10_000, interval: 50 };
const URLS = ["http://near/", "http://far/"];
const MODE = "istio.io/dataplane-mode";

const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
---`;

const lab = new Lab();

beforeAll(async () => {
  await lab.up(SHOP + STRICT);
  await watchForPlaintext();
});
afterAll(() => lab.down());

interface Outcome {
  readonly sent: number;
  readonly failed: number;
  /** The longest time without a success, by URL. */
  readonly gapMs: Readonly<Record<string, number>>;
}

/** Requests one after another, each on a new connection; prints how long nothing worked. */
const LOAD = `
  const http = require("http");
  const end = Date.now() + ${LOAD_S} * 1000;
  const result = { sent: 0, failed: 0, gapMs: {} };
  const loop = (url) => {
    let lastMs = Date.now();
    const done = (ok) => {
      const now = Date.now();
      if (!ok) result.failed++;
      else {
        result.gapMs[url] = Math.max(result.gapMs[url] ?? 0, now - lastMs);
        lastMs = now;
      }
      if (now < end) setTimeout(next, 5);
      else if (!ok) result.gapMs[url] = Math.max(result.gapMs[url] ?? 0, now - lastMs);
    };
    const next = () => {
      result.sent++;
      http.get(url, { agent: false, timeout: 3000 }, (r) => {
        let body = ""; r.on("data", (c) => body += c);
        r.on("end", () => done(body.includes("sees")));
      }).on("error", () => done(false)).on("timeout", function () { this.destroy(); });
    };
    next();
  };
  ${JSON.stringify(URLS)}.forEach(loop);
  process.on("exit", () => console.log(JSON.stringify(result)));`;

async function underLoad(blow: () => Promise<unknown>): Promise<Outcome> {
  const running = lab.exec("client.shop", process.execPath, "-e", LOAD);
  await pause();
  await blow();
  return JSON.parse(await running) as Outcome;
}

/** A load has no event for "in the middle of it". */
function pause(): Promise<void> {
  return new Promise((done) => setTimeout(done, Math.random() * PAUSE_MAX_MS));
}

async function kill(name: string, node?: string): Promise<void> {
  const { pid } = await lab.component(name, node);
  process.kill(pid!, "SIGKILL");
}

/** Stops a program in the middle of whatever it does, for as long as `body` takes. */
async function whileFrozen(name: string, node: string, body: () => Promise<void>): Promise<void> {
  const { pid } = await lab.component(name, node);
  process.kill(pid!, "SIGSTOP");
  try {
    await body();
  } finally {
    process.kill(pid!, "SIGCONT");
  }
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

async function nodeNetns(): Promise<string[]> {
  return (await lab.status()).nodes.map(({ netns }) => netns);
}

/** Counts, between the pods of the load, every packet on a node that is not of a tunnel. */
async function watchForPlaintext(): Promise<void> {
  const servers = await Promise.all(["near", "far"].map((name) => lab.ipOf(name)));
  const input = TABLE.replaceAll("CLIENT", await lab.ipOf("client")).replaceAll(
    "SERVERS",
    servers.join(", "),
  );
  for (const netns of await nodeNetns()) {
    execFileSync("ip", ["netns", "exec", netns, "nft", "-f", "-"], { input });
  }
}

async function expectNoPlaintext(): Promise<void> {
  for (const netns of await nodeNetns()) {
    const args = ["netns", "exec", netns, "nft", "list", "counters", "table", "inet", "plaintext"];
    expect(execFileSync("ip", args, { encoding: "utf8" })).toContain("packets 0 bytes 0");
  }
}

function expectRecovery({ sent, gapMs }: Outcome): void {
  expect(sent).toBeGreaterThan(50);
  for (const url of URLS) expect(gapMs[url]).toBeLessThan(RECOVERY_MAX_MS * BUSY_MACHINE);
}

const meshOf = async (name: string) => (await lab.pod(name)).mesh;
const label = (name: string, value: string) =>
  lab.must("local", "label", "pod", name, "-n", "shop", value);

describe("a mesh that starts", () => {
  it("enrols each pod once: none leaves again when its programs start", async () => {
    for (const node of ["node-1", "node-2"]) {
      const log = await lab.must("local", "logs", "cni-agent", "--node", node);
      expect(log).toContain("pod enrolled");
      expect(log).not.toContain("left the mesh");
    }
  });
});

describe("a program that is killed under load", () => {
  it.each([
    ["ztunnel", "node-1"],
    ["ztunnel", "node-2"],
  ])("%s on %s is back within two seconds, and nothing went in plain text", async (name, node) => {
    expectRecovery(await underLoad(() => kill(name, node)));
    await expectNoPlaintext();
  });

  it.each<[string, string | undefined]>([
    ["istiod-lite", undefined],
    ["cni-agent", "node-1"],
    ["cni-agent", "node-2"],
  ])("%s (%s) is not missed by any connection", async (name, node) => {
    const outcome = await underLoad(() => kill(name, node));
    expect(outcome.failed).toBe(0);
    expectRecovery(outcome);
    await expectNoPlaintext();
  });

  it("with all the others at once is back within two seconds", async () => {
    const programs = (await lab.status()).components;
    expectRecovery(
      await underLoad(async () => {
        for (const { pid } of programs) process.kill(pid!, "SIGKILL");
      }),
    );
    await expectNoPlaintext();
    for (const name of ["client", "near", "far"]) expect(await meshOf(name)).toBe("enrolled");
  });

  it("is no obstacle to what is asked for right after it", async () => {
    await kill("cni-agent", "node-2");
    const startMs = performance.now();
    await label("optout", `${MODE}=ambient`);
    await expect.poll(() => meshOf("optout"), SOON).toBe("enrolled");
    expect(performance.now() - startMs).toBeLessThan(RECOVERY_MAX_MS * BUSY_MACHINE);
    await label("optout", `${MODE}=none`);
    await expect.poll(() => meshOf("optout"), SOON).not.toBe("enrolled");
  });
});

const LATE = `${pod("late", { node: "node-2" })}
${service("late")}`;

describe("a pod that is to be enrolled while", () => {
  it("the node agent hangs does not start, and does when the agent goes on", async () => {
    const path = lab.file("late.yaml", LATE);
    await whileFrozen("cni-agent", "node-2", async () => {
      await lab.must("local", "apply", "-f", path);
      await expect.poll(async () => (await lab.pod("late")).ready, SOON).toBe(false);
      expect(await lab.reach("legacy.outside", "http://late.shop/")).toBe("refused");
    });
    await expect.poll(() => meshOf("late"), SOON).toBe("enrolled");
    await expect.poll(async () => (await lab.pod("late")).ready, SOON).toBe(true);
    expect(await lab.reach("client.shop", "http://late/")).toBe("reached");
    await lab.must("local", "delete", "-f", path);
  });

  it("ztunnel hangs is captured, says so, and waits", async () => {
    await whileFrozen("ztunnel", "node-2", async () => {
      await label("optout", `${MODE}=ambient`);
      const pending = async () => {
        const text = await lab.must("local", "get", "pod", "optout", "-n", "shop", "-o", "json");
        return /"ambit.io\/capture": ?"[^"]*"/.exec(text)?.[0];
      };
      await expect.poll(pending, SOON).toContain("unproven");
      expect(await meshOf("optout")).not.toBe("enrolled");
      expect(await lab.reach("optout.shop", "http://legacy.outside/")).toBe("refused");
    });
    await expect.poll(() => meshOf("optout"), SOON).toBe("enrolled");
    expect(await lab.reach("optout.shop", "http://legacy.outside/")).toBe("reached");
    await label("optout", `${MODE}=none`);
  });
});

describe("a pod that is deleted", () => {
  it.each([["cni-agent"], ["ztunnel"]])("goes although %s hangs", async (name) => {
    const path = lab.file("late.yaml", LATE);
    await lab.must("local", "apply", "-f", path);
    await expect.poll(async () => (await lab.pod("late")).ready, SOON).toBe(true);
    await whileFrozen(name, "node-2", async () => {
      await lab.must("local", "delete", "-f", path);
      const names = async () => (await lab.status()).pods.map((each) => each.name);
      await expect.poll(names, SOON).not.toContain("late");
    });
  });
});
