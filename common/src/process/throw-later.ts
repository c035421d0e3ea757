/** Makes it an uncaught exception, once whoever is running has returned. */
export function throwLater(error: unknown): void {
  process.nextTick(rethrow, error);
}

function rethrow(error: unknown): never {
  throw error;
}
