// The hosts file (hosts(5)): names that the machine knows without asking anybody.

import { readFile } from "node:fs/promises";
import { type Ip, parseIp } from "@ambit/common/net/ip.ts";

const HOSTS_FILE = "/etc/hosts";

/** The addresses of a lower-case name; none when the file does not name it, or is not there. */
export async function lookUpInHosts(hostname: string, path = HOSTS_FILE): Promise<Ip[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  return parseHosts(text, hostname);
}

export function parseHosts(text: string, hostname: string): Ip[] {
  const found: Ip[] = [];
  for (const line of text.split("\n")) {
    const [address, ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (!names.some((name) => name.toLowerCase() === hostname)) continue;
    const ip = parseIp(address ?? "");
    if (ip !== undefined) found.push(ip);
  }
  return found;
}
