// Whether somebody listens on a TCP port in a network namespace, by the kernel's own tables.

import { existsSync, readFileSync } from "node:fs";
import { inNetns } from "./netns.ts";

/** /proc/thread-self: the namespace belongs to the thread, and /proc/net shows that of the process. */
const TABLES = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/** TCP_LISTEN, as the fourth column has it. */
const LISTEN = "0A";

export function listensOn(netnsFd: number | undefined, port: number): boolean {
  const text = inNetns(netnsFd, () =>
    TABLES.filter((path) => existsSync(path)).map((path) => readFileSync(path, "utf8")),
  );
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return text.some((table) =>
    table.split("\n").some((line) => {
      const [, local = "", , state] = line.trim().split(/\s+/);
      return state === LISTEN && local.endsWith(suffix);
    }),
  );
}
