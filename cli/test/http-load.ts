// HTTP requests from one pod to others for some seconds, counted, for tests of what must not disturb them.

import type { ExpectStatic } from "vitest";
import type { Lab } from "./lab.ts";

/** Fewer would mean that the load waited for something. */
const REQUESTS_PER_SECOND_MIN = 20;
export interface LoadResult {
  readonly sent: number;
  readonly bad: Readonly<Record<string, number>>;
}

/** Requests one after another for some seconds, each on a new connection; prints what went wrong. */
const load = (seconds: number, urls: readonly string[]) => `
  const http = require("http");
  const urls = ${JSON.stringify(urls)};
  const end = Date.now() + ${seconds} * 1000;
  const bad = {};
  let sent = 0;
  const next = (url) => {
    if (Date.now() > end) return;
    sent++;
    const again = () => setTimeout(next, 5, url);
    http.get(url, { agent: false }, (r) => {
      let body = ""; r.on("data", (c) => body += c);
      r.on("end", () => { if (!body.includes("sees")) bad[body] = (bad[body] ?? 0) + 1; again(); });
    }).on("error", (e) => { bad[e.code] = (bad[e.code] ?? 0) + 1; again(); });
  };
  urls.forEach(next);
  process.on("exit", () => console.log(JSON.stringify({ sent, bad })));`;

/** Loads the URLs from the pod `client` of namespace shop, one request after another each. */
export async function underLoad(
  lab: Lab,
  seconds: number,
  urls: readonly string[],
): Promise<LoadResult> {
  const text = await lab.exec("client.shop", process.execPath, "-e", load(seconds, urls));
  return JSON.parse(text) as LoadResult;
}

/** Every request was answered, and there were as many as there should be. */
export function expectAllServed(
  expect: ExpectStatic,
  { sent, bad }: LoadResult,
  seconds: number,
): void {
  expect(bad).toEqual({});
  expect(sent).toBeGreaterThan(seconds * REQUESTS_PER_SECOND_MIN);
}
