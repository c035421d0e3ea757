// Workers for tests of the main thread: they remember what they were asked, and answer as told.

import { Signal } from "@ambit/common/testing/signal.ts";
import type { RequestName, Requests } from "../worker/protocol.ts";
import type { Workers } from "../worker/host.ts";

type Asked<N extends RequestName = RequestName> = {
  readonly name: N;
  readonly ask: Requests[N]["ask"];
};

type Answers = {
  [N in RequestName]?: (
    ask: Requests[N]["ask"],
  ) => Requests[N]["answer"] | Promise<Requests[N]["answer"]>;
};

export class FakeWorkers implements Workers {
  /** What to answer; null otherwise. */
  readonly answers: Answers = {};
  readonly signal = new Signal();
  readonly #asked: Asked[] = [];

  /** The names of all requests so far. */
  get names(): RequestName[] {
    return this.#asked.map(({ name }) => name);
  }

  asked<N extends RequestName>(name: N): Asked<N>[] {
    return this.#asked.filter((entry) => entry.name === name) as Asked<N>[];
  }

  async askAll<N extends RequestName>(
    name: N,
    ask: Requests[N]["ask"],
  ): Promise<Requests[N]["answer"][]> {
    return [await this.askOne(name, ask)];
  }

  async askOne<N extends RequestName>(
    name: N,
    ask: Requests[N]["ask"],
  ): Promise<Requests[N]["answer"]> {
    this.#asked.push({ name, ask });
    this.signal.changed();
    const answer = this.answers[name] as ((ask: Requests[N]["ask"]) => unknown) | undefined;
    return ((await answer?.(ask)) ?? null) as Requests[N]["answer"];
  }
}
