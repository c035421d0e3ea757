// CPU time of this process.

/** Milliseconds that `action` costs, on all threads. */
export function cpuMs(action: () => unknown): number {
  const start = process.cpuUsage();
  action();
  return cpuSince(start);
}

/** Milliseconds since `start` was taken with process.cpuUsage(). */
export function cpuSince(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
}
