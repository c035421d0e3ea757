// HTTP requests to the ports that listen inside a namespace, which is where every admin port of the
// local mesh is. Small answers only.

import http from "node:http";
import type { Ip } from "@ambit/common/net/ip.ts";
import { errorCode } from "@ambit/common/process/errors.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { connectTcp } from "@ambit/common/sys/sockets.ts";

export interface HttpTarget {
  /** A path such as /run/netns/NAME. */
  readonly netns: string;
  readonly ip: string;
  readonly port: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

export const LOOPBACK = "localhost";
const DEFAULT_TIMEOUT_MS = 10_000;

/** One request on a connection of its own. `localhost` tries 127.0.0.1, then ::1. Rejects like net.connect. */
export async function httpInNetns(
  target: HttpTarget,
  path: string,
  options: { method?: string; timeoutMs?: number; host?: string } = {},
): Promise<HttpAnswer> {
  if (target.ip !== LOOPBACK) return request(target, path, options);
  try {
    return await request({ ...target, ip: "127.0.0.1" }, path, options);
  } catch (error) {
    if (errorCode(error) !== "ECONNREFUSED") throw error;
    return request({ ...target, ip: "::1" }, path, options);
  }
}

async function request(
  { netns, ip, port }: HttpTarget,
  path: string,
  options: { method?: string; timeoutMs?: number; host?: string },
): Promise<HttpAnswer> {
  const { method = "GET", timeoutMs = DEFAULT_TIMEOUT_MS, host = "localhost" } = options;
  using handle = openNetns(netns);
  const destination = { ip: ip as Ip, port };
  const { socket } = await connectTcp(handle.fd, { destination, timeoutMs });
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeoutMs);
    const sent = http.request({
      createConnection: () => socket,
      method,
      path,
      signal,
      headers: { host, connection: "close" },
    });
    sent.on("error", (error) => {
      socket.destroy();
      reject(error);
    });
    sent.on("response", (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (body += chunk));
      response.on("error", reject);
      response.on("end", () => {
        socket.destroy();
        resolve({ status: response.statusCode ?? 0, body });
      });
    });
    sent.end();
    // Dialed sockets come paused, and the HTTP client takes a socket as it finds it.
    socket.resume();
  });
}
