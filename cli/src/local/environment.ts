// What a machine must have before a local mesh is started on it: each thing that is missing is one
// sentence with the way to get it, and nothing has been made yet.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { missingCapabilities } from "@ambit/common/sys/capabilities.ts";
import { runCommand } from "./command.ts";

const PROGRAMS = { ip: "iproute2", nft: "nftables", nsenter: "util-linux", unshare: "util-linux" };

/** A rule set that uses what the parts use of nf_tables, in a namespace that ends with the probe. */
const PROBE_RULES = `
table inet ambit_probe {
  set addresses { type ipv4_addr; flags interval; }
  chain nat { type nat hook output priority -100; ip daddr @addresses tcp dport 80 redirect to :81; }
  chain mangle { type route hook output priority -150; ct mark 0x111 meta mark set ct mark; }
}
`;

/** Throws a UserError that says what this machine or user lacks for a local mesh. */
export async function checkEnvironment(): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new UserError(
      "a local mesh makes network namespaces, which needs root: run this as root",
    );
  }
  const missing = missingCapabilities(["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]);
  if (missing.length > 0) {
    throw new UserError(
      `a local mesh needs ${missing.join(", ")}, which this root does not have: in a container, run it privileged`,
    );
  }
  requirePrograms();
  await requireNftables();
}

function requirePrograms(): void {
  const missing = Object.entries(PROGRAMS).filter(([program]) => !isOnPath(program));
  if (missing.length === 0) return;
  const names = missing.map(([program]) => program).join(", ");
  const packages = [...new Set(missing.map(([, name]) => name))].join(" ");
  throw new UserError(`missing ${names}: install with "apt-get install ${packages}"`);
}

async function requireNftables(): Promise<void> {
  try {
    await runCommand("unshare", ["--net", "nft", "-f", "-"], PROBE_RULES);
  } catch (error) {
    const [reason] = errorMessage(error).split("\n");
    throw new UserError(
      `this kernel does not take the mesh's nftables rules (${reason}): it needs nf_tables with nat, redirect and ct support`,
    );
  }
}

function isOnPath(program: string): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
