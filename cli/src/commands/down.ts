// `ambit local down`: asks the supervisor to stop and waits for it; then, whether or not one ran, removes
// whatever is left.

import { UserError } from "@ambit/common/process/errors.ts";
import type { Home } from "../local/home.ts";
import { sendSignal } from "../local/leftovers.ts";
import { cleanUp, clearHome, isOurFolder } from "../local/local-mesh.ts";
import { findLockHolder } from "../local/lock.ts";

/** A supervisor that cannot clean up in this time is ended, and its mesh removed from here. */
const STOP_TIMEOUT_MS = 20_000;

export async function bringDown(home: Home): Promise<void> {
  if (process.getuid?.() !== 0) throw new UserError("removing a local mesh needs root");
  const holder = await findLockHolder(home);
  if (holder !== undefined) {
    sendSignal(holder.pid, "SIGTERM");
    if (!(await holder.released(STOP_TIMEOUT_MS))) {
      sendSignal(holder.pid, "SIGKILL");
      await holder.released(STOP_TIMEOUT_MS);
    }
  }
  const cleaned = await cleanUp(home);
  if (isOurFolder(home)) clearHome(home, { keepLogs: true });
  if (holder !== undefined) console.log("stopped, nothing is left");
  else console.log(cleaned ?? "no local mesh was running");
}
