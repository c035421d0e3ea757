// Pods that are labelled into the mesh while they are busy: ztunnel listens in them before anything of theirs
// is captured, so that no connection finds nobody.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { expectAllServed, type Outcome, underLoad } from "./load/load.ts";
import { SHOP } from "./shop.ts";

const MODE = "istio.io/dataplane-mode";
const REQUESTS_PER_SECOND = 200;
/** Each costs a second or two; what gets lost is lost within a few milliseconds of one of them. */
const TIMES = 2;
const SOON = { timeout: 10_000, interval: 20 };

describe.each(["ebpf", "nftables"])("a busy pod enters the mesh by %s", (way) => {
  const lab = new Lab({ UNENROLMENT_DRAIN: "200ms" });
  beforeAll(() => lab.up(SHOP, "--redirection", way));
  afterAll(() => lab.down());

  async function setMode(name: string, mode: "ambient" | "none"): Promise<void> {
    await lab.must("local", "label", "pod", name, "-n", "shop", `${MODE}=${mode}`);
    const expected = mode === "ambient" ? "enrolled" : "no";
    await expect.poll(async () => (await lab.pod(name)).mesh, SOON).toBe(expected);
  }

  /** Enters while it is called, or calls. */
  async function enter(name: string): Promise<Outcome> {
    await setMode(name, "none");
    const left = async () =>
      (await lab.must("ztunnel", "pods", "-o", "json")).includes(`"${name}"`);
    await expect.poll(left, SOON).toBe(false);
    return await underLoad(lab, { requests: REQUESTS_PER_SECOND }, async (load) => {
      await setMode(name, "ambient");
      await load.rounds(5);
    });
  }

  it.each(["client", "near", "far"])("as %s, and no request fails", async (name) => {
    for (let i = 0; i < TIMES; i++) expectAllServed(expect, await enter(name), 1);
  });
});
