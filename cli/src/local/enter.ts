// The command line that runs a program inside a pod or node: its network namespace, its cgroup if it has
// one, and a mount namespace of its own where resolv.conf and hosts are the pod's. The program keeps the
// process id.

import { netnsPath } from "./home.ts";

export interface Inside {
  readonly netns: string;
  readonly resolvConf: string;
  readonly hosts: string;
  readonly workingDir: string;
  /** The folder of the cgroup to run in; absent: the caller's own. */
  readonly cgroup?: string | undefined;
}

const SCRIPT = [
  '[ ! -e /etc/resolv.conf ] || mount --bind "$1" /etc/resolv.conf || exit 126',
  '[ ! -e /etc/hosts ] || mount --bind "$2" /etc/hosts || exit 126',
  '[ -z "$4" ] || echo 0 > "$4/cgroup.procs" || exit 126',
  'cd "$3" || exit 126',
  'shift 4; exec "$@"',
].join("\n");

/** The program and arguments to spawn so that `argv` runs inside. */
export function enterCommand(inside: Inside, argv: readonly string[]): [string, string[]] {
  const { netns, resolvConf, hosts, workingDir, cgroup = "" } = inside;
  // Slave: namespaces that come and go under /run/netns are seen inside, and not held by it.
  const enter = [
    "unshare",
    "--mount",
    "--propagation",
    "slave",
    "sh",
    "-c",
    SCRIPT,
    "sh",
    resolvConf,
    hosts,
    workingDir,
    cgroup,
  ];
  return ["nsenter", [`--net=${netnsPath(netns)}`, ...enter, ...argv]];
}
