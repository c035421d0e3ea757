// What a load is told, and what it saw: the words between a test and the program in the pod.

export interface LoadOptions {
  /** Services asked on port 80. */
  readonly hosts: readonly string[];
  /** "one by one": the next after the answer, on a connection of its own. A number: so many a second. */
  readonly requests: "one by one" | "none" | number;
  /** Between two requests that are made one by one. */
  readonly pauseMs: number;
  /** Connections to each host that stay, and are spoken on all the time. */
  readonly lasting: number;
  /** A request or a word without an answer for this long has failed. */
  readonly answerTimeoutMs: number;
}

/** A time in which no request to a host was answered, by the machine's clock. */
export interface Gap {
  readonly host: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** A lasting connection that ended before the load did. */
export interface Cut {
  readonly host: string;
  readonly port: number;
  /** An error's code, "closed" or "no answer". */
  readonly why: string;
  /** By the machine's clock. */
  readonly atMs: number;
}

export interface Outcome {
  readonly sent: number;
  readonly failed: number;
  /** Answers of somebody else than who was asked. */
  readonly wrong: number;
  /** What became of the first that failed. */
  readonly failures: readonly string[];
  /** Words that came back on lasting connections. */
  readonly talks: number;
  readonly cuts: readonly Cut[];
  /** The longest of each host, however short. */
  readonly gapMs: Readonly<Record<string, number>>;
  /** All that are longer than GAP_MIN_MS, in order. */
  readonly gaps: readonly Gap[];
}

/** Printed each time everything that is asked or spoken to has answered once more. */
export const ROUND = "round";
