// Processor time of processes: steadier than wall time on a machine that does other things, too.

import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The kernel's USER_HZ, which /proc counts in: 100 on every supported machine. */
const MICROSECONDS_PER_TICK = 10_000;

/** User and system time that the processes have used so far, all threads, in microseconds. */
export function cpuMicroseconds(pids: readonly number[]): number {
  return pids.reduce((total, pid) => total + ticksOf(pid), 0) * MICROSECONDS_PER_TICK;
}

/** The same for everything that lives or lived in a cgroup. */
export function cgroupMicroseconds(folder: string): number {
  const stat = readFileSync(join(folder, "cpu.stat"), "utf8");
  return Number(/^usage_usec (\d+)$/m.exec(stat)?.[1] ?? Number.NaN);
}

/** Fields 14 and 15 of /proc/PID/stat (proc_pid_stat(5)); the name, field 2, may hold blanks. */
function ticksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
