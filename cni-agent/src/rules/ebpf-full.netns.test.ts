// Maps that are full: what does not fit is refused, and counted or said, never let through.

import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { CONSTANTS, MAPS } from "@ambit/common/sys/bpf-layout.gen.ts";
import { BpfMap, openPinned } from "@ambit/common/sys/bpf-map.ts";
import { mapFolder } from "@ambit/common/sys/bpf-steering.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { ALL, type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { dial, ip, talk, TestServer } from "../testing/test-network.ts";
import { EbpfBackend } from "./ebpf-backend.ts";

const APP_PORT = 8080;
/** No namespace has these cookies. */
const NOBODY = 2n ** 60n;

let harness: EbpfHarness;
beforeEach(() => {
  harness = ebpfHarness();
});
afterEach(() => harness.close());

it("a delivery whose pass does not fit reaches ztunnel, not the application, and is counted", async () => {
  const { network, node, pins, mark } = harness;
  await harness.install();
  await using plaintext = await harness.listen("PLAINTEXT");
  await using server = await TestServer.start(network.pod, ip("::"), APP_PORT);
  const passes = new BpfMap("passes", openPinned(join(mapFolder(pins), "passes")), MAPS.passes);
  const key = (index: number) => {
    const bytes = Buffer.alloc(MAPS.passes.keyBytes);
    bytes.writeUInt32LE(index + 1);
    return bytes;
  };
  const value = Buffer.alloc(MAPS.passes.valueBytes, 1);
  for (let index = 0; index < CONSTANTS.PASSES_MAX; index++) passes.set(key(index), value);
  const failed = () => node.steering.counters().get("PASS_INSERT_FAILED")!;
  const before = failed();
  const deliver = () =>
    dial(network.pod, network.pod.ip4, APP_PORT, { mark, spoof: network.other.ip4 });
  using _ = harness.asProxy();
  const refused = await deliver();
  await plaintext.next();
  expect([server.connectionCount, failed() - before]).toEqual([0, 1]);
  for (let index = 0; index < CONSTANTS.PASSES_MAX; index++) passes.delete(key(index));
  const delivered = await deliver();
  await talk(delivered, await server.next());
  for (const socket of [refused, delivered]) socket.destroy();
  closeFd(passes.fd);
});

it("a pod for which there is no slot is not enrolled, and the error names the bound", async () => {
  const { network, node, kubelet } = harness;
  const { SLOTS_MAX } = CONSTANTS;
  for (let slot = 0; slot < SLOTS_MAX; slot++) node.steering.enrol(NOBODY + BigInt(slot), slot);
  const backend = new EbpfBackend(node, harness.backend, kubelet);
  const installed = backend.install(network.pod.netns, ALL);
  await expect(installed).rejects.toThrow(`all ${SLOTS_MAX} slots of the node are taken`);
  expect(backend.isActive(network.pod.netns)).toBe(false);
});
