// How long something exists, in kubectl's short form.

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** "12s", "5m", "3h", "2d"; empty when the time is not known. */
export function age(timestamp: string | undefined, nowMs: number): string {
  const thenMs = Date.parse(timestamp ?? "");
  if (Number.isNaN(thenMs)) return "";
  const elapsedMs = Math.max(0, nowMs - thenMs);
  if (elapsedMs < 2 * MINUTE_MS) return `${Math.floor(elapsedMs / SECOND_MS)}s`;
  if (elapsedMs < 2 * HOUR_MS) return `${Math.floor(elapsedMs / MINUTE_MS)}m`;
  if (elapsedMs < 2 * DAY_MS) return `${Math.floor(elapsedMs / HOUR_MS)}h`;
  return `${Math.floor(elapsedMs / DAY_MS)}d`;
}
