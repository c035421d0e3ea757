// The files that are bound over /etc/resolv.conf and /etc/hosts inside a pod or node.

import { join } from "node:path";
import type { Home } from "./home.ts";

/** `name` is NAMESPACE.POD, or the node. */
export function etcFilesOf(home: Home, name: string): { resolvConf: string; hosts: string } {
  return {
    resolvConf: join(home.etc, `${name}.resolv.conf`),
    hosts: join(home.etc, `${name}.hosts`),
  };
}
