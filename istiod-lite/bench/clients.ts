// The process that the proxies of the scale bench live in; bench/main.ts starts it and tells it what to do.

import { openThinClient } from "./thin-client.ts";

/** To this process: open so many more streams. */
export interface OpenClients {
  readonly address: string;
  readonly count: number;
}

/** From this process, for every response: when it was there, in milliseconds since the epoch. */
export interface Received {
  readonly client: number;
  readonly typeUrl: string;
  readonly resources: number;
  readonly bytes: number;
  readonly atMs: number;
}

let opened = 0;

process.on("message", ({ address, count }: OpenClients) => {
  for (let i = 0; i < count; i++) {
    const client = opened++;
    openThinClient(address, client, ({ typeUrl, resources, bytes }) => {
      const atMs = performance.timeOrigin + performance.now();
      process.send?.({ client, typeUrl, resources, bytes, atMs } satisfies Received);
    });
  }
});
process.on("disconnect", () => process.exit(0));
