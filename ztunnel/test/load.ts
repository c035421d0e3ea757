// Traffic that never pauses, for tests of what must not be noticed: connections made one after another,
// and connections that stay. Every failure is kept, with what the connection was doing.

import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type net from "node:net";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { Signal } from "@ambit/common/testing/signal.ts";
import { roundTrip } from "./lab.ts";

/** Between two round trips of one loop: the machine is to have time for what is tested. */
const PACE_MS = 2;

export class Load {
  readonly #connect: () => Promise<net.Socket>;
  readonly #signal = new Signal();
  readonly #workers: Promise<void>[] = [];
  readonly failures: string[] = [];
  /** Round trips so far, on new connections and on lasting ones. */
  fresh = 0;
  lasting = 0;
  #stopped = false;

  /** Starts at once: `fresh` loops that connect anew each time, `lasting` connections that stay. */
  constructor(connect: () => Promise<net.Socket>, loops: { fresh: number; lasting: number }) {
    this.#connect = connect;
    for (let i = 0; i < loops.fresh; i++) this.#workers.push(this.#connectAgainAndAgain());
    for (let i = 0; i < loops.lasting; i++) this.#workers.push(this.#stay());
  }

  /** Resolves when this many more round trips of each kind were made; zero for a kind that is not used. */
  async more(fresh: number, lasting: number): Promise<void> {
    const wanted = { fresh: this.fresh + fresh, lasting: this.lasting + lasting };
    await this.#signal.until(() => this.fresh >= wanted.fresh && this.lasting >= wanted.lasting);
  }

  /** Ends every connection in good order. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#workers);
  }

  async #connectAgainAndAgain(): Promise<void> {
    while (!this.#stopped) {
      await this.#attempt("a new connection", async () => {
        const socket = await this.#connect();
        await roundTrip(socket, "fresh");
        await end(socket);
      });
      this.fresh++;
      this.#signal.changed();
      await sleep(PACE_MS);
    }
  }

  async #stay(): Promise<void> {
    await this.#attempt("a lasting connection", async () => {
      const socket = await this.#connect();
      while (!this.#stopped) {
        await roundTrip(socket, "lasting");
        this.lasting++;
        this.#signal.changed();
        await sleep(PACE_MS);
      }
      await end(socket);
    });
  }

  async #attempt(what: string, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.failures.push(`${what} after ${this.fresh}: ${errorMessage(error)}`);
    }
  }
}

/** A FIN each way; anything else is a failure. */
async function end(socket: net.Socket): Promise<void> {
  const closed = once(socket, "close");
  socket.end();
  await closed;
}
