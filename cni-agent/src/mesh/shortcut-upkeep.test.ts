import { expect, it } from "vitest";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { SHORTCUT_INTERVAL_MS, ShortcutUpkeep } from "./shortcut-upkeep.ts";

it("looks again after every interval, whatever happened, until it is closed", async () => {
  const clock = new FakeClock();
  const { log, lines } = memoryLog("info");
  const pods: NetnsHandle[] = [];
  const looks: Iterable<NetnsHandle>[] = [];
  const openShortcuts = (given: Iterable<NetnsHandle>) => {
    looks.push(given);
    return looks.length === 1 ? Promise.reject(new Error("no room")) : Promise.resolve();
  };
  const upkeep = new ShortcutUpkeep({
    backend: { openShortcuts },
    pods: () => pods,
    clock,
    log: log.scope("redirection"),
  });
  expect(looks).toEqual([]);
  for (let i = 0; i < 2; i++) await clock.advance(SHORTCUT_INTERVAL_MS);
  expect(looks).toEqual([pods, pods]);
  expect(lines.filter((line) => line.includes("no room"))).toHaveLength(1);
  await upkeep.close();
  await clock.advance(SHORTCUT_INTERVAL_MS);
  expect(looks).toHaveLength(2);
  expect(clock.pendingTimers).toBe(0);
});
