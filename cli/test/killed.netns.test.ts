// Every program of the mesh killed, or frozen, at any moment while traffic runs: how soon things are as
// before, and that nothing goes out in plain text meanwhile. The namespace is STRICT throughout.

import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { kill } from "./blows.ts";
import { HOSTS, type Outcome, underLoad } from "./load/load.ts";
import { plaintextPackets, STRICT, watchForPlaintext } from "./plaintext.ts";
import { pod, service, SHOP } from "./shop.ts";

/** Two seconds where nothing else runs; the suite's machine has other work, too. */
const RECOVERY_MAX_MS = 2_000;
const BUSY_MACHINE = 3;
/** For the pauses before the blow: no phase of the mesh's work is favoured. */
const PAUSE_MAX_MS = 300;
/** The load goes on for so long once everything has answered again: nothing may come after. */
const PEACE_MS = 4_000;
/** A request that hangs is given up before it hides what comes after. */
const ANSWER_TIMEOUT_MS = 3_000;
const SOON = { timeout: 10_000, interval: 50 };
const MODE = "istio.io/dataplane-mode";

const lab = new Lab();

beforeAll(async () => {
  await lab.up(SHOP + STRICT);
  await watchForPlaintext(lab);
});
afterAll(() => lab.down());

function struck(blow: () => Promise<unknown>): Promise<Outcome> {
  return underLoad(lab, { answerTimeoutMs: ANSWER_TIMEOUT_MS }, async (load) => {
    await pause(Math.random() * PAUSE_MAX_MS);
    await blow();
    await load.rounds(2);
    await pause(PEACE_MS);
  });
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

async function expectNoPlaintext(): Promise<void> {
  expect(await plaintextPackets(lab)).toEqual([0, 0]);
}

function expectRecovery({ sent, gapMs }: Outcome): void {
  expect(sent).toBeGreaterThan(50);
  for (const host of HOSTS) expect(gapMs[host]).toBeLessThan(RECOVERY_MAX_MS * BUSY_MACHINE);
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
    expectRecovery(await struck(() => kill(lab, name, node)));
    await expectNoPlaintext();
  });

  it.each<[string, string | undefined]>([
    ["istiod-lite", undefined],
    ["cni-agent", "node-1"],
    ["cni-agent", "node-2"],
  ])("%s (%s) is not missed by any connection", async (name, node) => {
    const outcome = await struck(() => kill(lab, name, node));
    expect(outcome.failures).toEqual([]);
    expectRecovery(outcome);
    await expectNoPlaintext();
  });

  it("with all the others at once is back within two seconds", async () => {
    const programs = (await lab.status()).components;
    expectRecovery(
      await struck(async () => {
        for (const { pid } of programs) process.kill(pid!, "SIGKILL");
      }),
    );
    await expectNoPlaintext();
    for (const name of ["client", "near", "far"]) expect(await meshOf(name)).toBe("enrolled");
  });

  it("with its node's agent is back when that is", async () => {
    const outcome = await struck(async () => {
      await kill(lab, "cni-agent", "node-2");
      await kill(lab, "ztunnel", "node-2");
    });
    expectRecovery(outcome);
    await expectNoPlaintext();
  });

  it("is no obstacle to what is asked for right after it", async () => {
    await kill(lab, "cni-agent", "node-2");
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
