// Uncaught exceptions as a test expects them, instead of ending it.

export interface Uncaught extends Disposable {
  /** Of the errors so far. */
  readonly messages: string[];
}

/** Collects them until it is disposed. */
export function uncaught(): Uncaught {
  const messages: string[] = [];
  const others = process.listeners("uncaughtException");
  const collect = (error: Error) => void messages.push(error.message);
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", collect);
  return {
    messages,
    [Symbol.dispose]: () => {
      process.off("uncaughtException", collect);
      for (const other of others) process.on("uncaughtException", other);
    },
  };
}
