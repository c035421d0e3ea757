// That the connections with a mark end, and no others; and that their end is nobody's condition.

import { once } from "node:events";
import { afterAll, afterEach, beforeAll, expect, it, vi } from "vitest";
import {
  createTestNetwork,
  dial,
  ip,
  type TestNetwork,
  TestServer,
} from "../testing/test-network.ts";
import { endConnections } from "./end-connections.ts";
import { CONNECTION_MARK, PROXY_MARK } from "./wire.ts";

let network: TestNetwork;
beforeAll(() => {
  network = createTestNetwork();
});
afterEach(() => vi.unstubAllEnvs());
afterAll(() => network.remove());

it("ends the connections that have the mark, and leaves the others alone", async () => {
  const { pod } = network;
  await using server = await TestServer.start(pod, ip("::"), 8080);
  const marked = await dial(pod, pod.ip4, 8080, { mark: CONNECTION_MARK });
  const other = await dial(pod, pod.ip4, 8080, { mark: PROXY_MARK });
  await server.next();
  const ended = once(marked.resume(), "error");
  await endConnections(pod.netns, CONNECTION_MARK);
  expect(await ended).toMatchObject([{ code: "ECONNABORTED" }]);
  expect(other.readyState).toBe("open");
  other.destroy();
});

it("is left to ztunnel where ss is missing", async () => {
  vi.stubEnv("PATH", "/nonexistent");
  await expect(endConnections(network.pod.netns, PROXY_MARK)).resolves.toBeUndefined();
});
