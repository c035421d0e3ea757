// Requests of a load: one after the other to a host, or so many a second to all of them.

import http from "node:http";
import type { LoadOptions } from "./options.ts";
import type { Tally } from "./tally.ts";

/** Of requests by rate, one in five is made on a connection of its own. */
const FRESH_EVERY = 5;
const KEPT_SOCKETS_MAX = 16;
const OFFER_PERIOD_MS = 10;
/** What is late is not sent all at once, nor without end: that would test another thing. */
const OFFERED_AT_ONCE_MAX = 20;
const WAITING_MAX = 200;

/** Makes requests until it is stopped; those that are under way then are still awaited. */
export interface Requests {
  stop(): void;
}

interface Target {
  readonly host: string;
  readonly agent: http.Agent | false;
  readonly timeoutMs: number;
}

/** One request; resolves when it is over, whichever way. */
function ask({ host, agent, timeoutMs }: Target, tally: Tally): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let over = false;
  const end = (tell: () => void) => {
    if (over) return;
    over = true;
    tell();
    resolve();
  };
  const kind = agent === false ? "" : " on a kept connection";
  const failed = (error: NodeJS.ErrnoException) =>
    end(() => tally.failure(host, `${error.syscall ?? ""} ${error.code ?? error.message}${kind}`));
  tally.request();
  const request = http.get({ host, agent, timeout: timeoutMs }, (response) => {
    let text = "";
    response.on("error", failed);
    response.on("data", (chunk: Buffer) => (text += chunk.toString()));
    response.on("end", () => end(() => tally.answer(host, text)));
  });
  request.on("error", failed);
  request.on("timeout", () => request.destroy(new Error("no answer")));
  return promise;
}

/** The next after the answer, each on a connection of its own. */
export class OneByOne implements Requests {
  #stopped = false;
  #pause: NodeJS.Timeout | undefined;

  constructor(host: string, { answerTimeoutMs, pauseMs }: LoadOptions, tally: Tally) {
    const target = { host, agent: false, timeoutMs: answerTimeoutMs } as const;
    const next = async () => {
      await ask(target, tally);
      if (!this.#stopped) this.#pause = setTimeout(() => void next(), pauseMs);
    };
    void next();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#pause);
  }
}

/** So many a second, to the hosts in turn, most of them on connections that are kept. */
export class ByRate implements Requests {
  readonly #agent = new http.Agent({
    keepAlive: true,
    maxSockets: KEPT_SOCKETS_MAX,
    scheduling: "fifo",
  });
  readonly #timer: NodeJS.Timeout;

  constructor(perSecond: number, { hosts, answerTimeoutMs }: LoadOptions, tally: Tally) {
    const startMs = performance.now();
    this.#timer = setInterval(() => {
      const due = ((performance.now() - startMs) * perSecond) / 1000;
      for (let i = 0; i < OFFERED_AT_ONCE_MAX; i++) {
        if (tally.sent >= due || tally.waiting >= WAITING_MAX) return;
        const agent = tally.sent % FRESH_EVERY === 0 ? false : this.#agent;
        const host = hosts[tally.sent % hosts.length]!;
        void ask({ host, agent, timeoutMs: answerTimeoutMs }, tally);
      }
    }, OFFER_PERIOD_MS);
  }

  /** The connections that are kept do not keep the process. */
  stop(): void {
    clearInterval(this.#timer);
  }
}
