// How long it takes until a pod is captured: rules and ztunnel's listeners, without what a control plane
// or ztunnel itself adds. One pod after the other, then a crowd at once. Needs root; nothing is asserted.
//   node cni-agent/bench/enrol.ts [PODS] [CROWD]

import { closeFd } from "@ambit/common/sys/libc.ts";
import { createNetns, type NetnsHandle } from "@ambit/common/sys/netns.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import { NftablesBackend } from "../src/rules/nftables-backend.ts";
import { runChecked } from "../src/rules/run-command.ts";
import { SwitchingBackend } from "../src/rules/switching-backend.ts";
import { ALL, type EbpfHarness, ebpfHarness } from "../src/testing/redirection-harness.ts";
import { ip } from "../src/testing/test-network.ts";

const [pods = 200, crowd = 200] = process.argv.slice(2).map(Number);
const WAYS = ["ebpf", "translating"] as const;

interface BenchPod {
  readonly netns: NetnsHandle;
  readonly listeners: number[];
}

async function makePod(number: number): Promise<BenchPod> {
  const netns = createNetns();
  const address = `10.200.${number >> 8}.${number & 255}/32`;
  const lines = [
    "link set lo up",
    `addr add ${address} dev lo`,
    `addr add fd77:9::${number}/128 dev lo nodad`,
  ];
  await runChecked(netns, ["ip", "-batch", "-"], `${lines.join("\n")}\n`);
  return { netns, listeners: [] };
}

async function enrol(harness: EbpfHarness, backend: SwitchingBackend, pod: BenchPod) {
  const startMs = performance.now();
  await backend.install(pod.netns, ALL);
  const slot = backend.slotOf(pod.netns, ALL);
  for (const role of slot === undefined ? [] : (["OUTBOUND", "PLAINTEXT", "HBONE"] as const)) {
    const fd = listenTcp(pod.netns.fd, { address: { ip: ip("::"), port: 0 } });
    harness.node.steering.setListener(slot!, role, fd);
    pod.listeners.push(fd);
  }
  await backend.settle(pod.netns, ALL);
  return performance.now() - startMs;
}

async function leave(backend: SwitchingBackend, { netns, listeners }: BenchPod): Promise<void> {
  listeners.splice(0).forEach(closeFd);
  await backend.remove(netns);
  netns.close();
}

function describe(what: string, samples: number[]): void {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.floor((sorted.length - 1) * part)]!.toFixed(1);
  console.log(`${what}: median ${at(0.5)} ms, 99 of 100 below ${at(0.99)}, longest ${at(1)}`);
}

const harness = ebpfHarness();
try {
  const hostNetns = harness.network.node.netns;
  const translating = new NftablesBackend({ hostNetns, probeUid: undefined });
  const backend = new SwitchingBackend({ translating, ebpf: harness.backend });
  for (const way of WAYS) {
    backend.prefer(way);
    const single: number[] = [];
    for (let i = 0; i < pods; i++) {
      const pod = await makePod(i + 1);
      single.push(await enrol(harness, backend, pod));
      await leave(backend, pod);
    }
    describe(`${backend.name}, ${pods} pods one after another`, single);
    const many = await Promise.all(Array.from({ length: crowd }, (_, i) => makePod(i + 1)));
    const startMs = performance.now();
    const took = await Promise.all(many.map((pod) => enrol(harness, backend, pod)));
    describe(`${backend.name}, ${crowd} at once, each`, took);
    console.log(`  all of them: ${(performance.now() - startMs).toFixed(0)} ms`);
    for (const pod of many) await leave(backend, pod);
  }
} finally {
  harness.close();
}
