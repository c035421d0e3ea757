// What the shop's HTTP services share: a server that answers GET with JSON or HTML, and a client call.

import http from "node:http";

export interface Answer {
  readonly status?: number;
  readonly html?: string;
  readonly json?: unknown;
}

const CALL_TIMEOUT_MS = 3_000;

/** Serves until the process ends; `/healthz` answers by itself. */
export function serve(port: number, answer: (path: string) => Promise<Answer> | Answer): void {
  const server = http.createServer((request, response) => {
    void respond(request.url ?? "/", answer).then(({ status = 200, html, json }) => {
      const type = html === undefined ? "application/json" : "text/html; charset=utf-8";
      response.writeHead(status, { "content-type": type });
      response.end(html ?? `${JSON.stringify(json)}\n`);
    });
  });
  server.listen(port, () => console.log(`listening on ${port}`));
  process.on("SIGTERM", () => server.close(() => process.exit(0)));
}

async function respond(
  path: string,
  answer: (path: string) => Promise<Answer> | Answer,
): Promise<Answer> {
  if (path === "/healthz") return { json: "ok" };
  try {
    return await answer(path);
  } catch (error) {
    return { status: 503, json: { error: error instanceof Error ? error.message : String(error) } };
  }
}

/** GETs JSON from another service; throws with the service's name when that fails. */
export async function getJson<T>(service: string, path: string): Promise<T> {
  const response = await fetch(`http://${service}${path}`, {
    signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    headers: { connection: "close" },
  }).catch((error: unknown) => {
    throw new Error(`${service} is unavailable: ${String(error)}`);
  });
  if (!response.ok) throw new Error(`${service} answered ${response.status}`);
  return (await response.json()) as T;
}
