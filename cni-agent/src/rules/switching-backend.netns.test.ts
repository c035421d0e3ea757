// A pod that changes from one way of redirection to the other while it runs: what is connected stays so, what
// is new is captured at every moment, and in the end nothing of the old way is left.

import type net from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { ListenerRole, Steering } from "@ambit/common/sys/bpf-steering.ts";
import * as linux from "@ambit/common/sys/constants.ts";
import { bindTo, connectApp, setOption } from "../testing/app-socket.ts";
import { ALL, type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "../testing/test-network.ts";
import type { TranslatingBackend } from "./backend.ts";
import { IptablesBackend } from "./iptables-backend.ts";
import { NftablesBackend } from "./nftables-backend.ts";
import { SwitchingBackend } from "./switching-backend.ts";
import * as wire from "./wire.ts";

const APP_PORT = 8080;

let harness: EbpfHarness;
beforeAll(() => {
  harness = ebpfHarness();
});
afterEach(() => harness.reset());
afterAll(() => harness.close());

type Pair = readonly [net.Socket, net.Socket];

/** ztunnel's listeners of one way, as the way has them. */
async function listeners(
  steered: boolean,
): Promise<Record<"OUTBOUND" | "PLAINTEXT", TestServer> & AsyncDisposable> {
  const ports = { OUTBOUND: wire.OUTBOUND_PORT, PLAINTEXT: wire.INBOUND_PORT };
  const open = async (role: keyof typeof ports & ListenerRole) => {
    if (steered) return harness.listen(role);
    return TestServer.start(harness.network.pod, ip("::"), ports[role], wire.PROXY_MARK);
  };
  const [OUTBOUND, PLAINTEXT] = [await open("OUTBOUND"), await open("PLAINTEXT")];
  return {
    OUTBOUND,
    PLAINTEXT,
    [Symbol.asyncDispose]: async () => {
      await OUTBOUND[Symbol.asyncDispose]();
      await PLAINTEXT[Symbol.asyncDispose]();
    },
  };
}

/** One connection of each kind that ztunnel has a part in. */
async function connectAll(
  ztunnel: Record<"OUTBOUND" | "PLAINTEXT", TestServer>,
  app: TestServer,
): Promise<Pair[]> {
  const { pod, other } = harness.network;
  const outbound4 = connectApp(pod, OUTSIDE.ip4, 80);
  const first: Pair = [outbound4, await ztunnel.OUTBOUND.next()];
  const outbound6 = connectApp(pod, OUTSIDE.ip6, 80);
  const second: Pair = [outbound6, await ztunnel.OUTBOUND.next()];
  const inbound = connectApp(other, pod.ip4, APP_PORT);
  const third: Pair = [inbound, await ztunnel.PLAINTEXT.next()];
  using _ = harness.asProxy();
  const delivered = await dial(pod, pod.ip4, APP_PORT, { mark: wire.PROXY_MARK, spoof: other.ip4 });
  return [first, second, third, [delivered, await app.next()]];
}

async function talkAll(pairs: readonly Pair[]): Promise<void> {
  for (const [a, b] of pairs) await talk(a, b);
}

function destroyAll(pairs: readonly Pair[]): void {
  for (const socket of pairs.flat()) socket.destroy();
}

/** Before connect(): as ztunnel delivers, from a client's address. */
const asClient = (client: Ip) => (fd: number) => {
  setOption(fd, linux.SOL_SOCKET, linux.SO_MARK, wire.PROXY_MARK);
  setOption(fd, linux.SOL_IP, linux.IP_TRANSPARENT, 1);
  bindTo(fd, client, 0);
};

/** Calls back after each write that begins or ends capture, before the next one. */
function afterEachWrite(steering: Steering, callback: () => void): Disposable {
  const spies = (["enrol", "setSlot", "release"] as const).map((name) => {
    const write = steering[name].bind(steering) as (...words: unknown[]) => unknown;
    return vi.spyOn(steering, name).mockImplementation((...words: unknown[]) => {
      const result = write(...words);
      callback();
      return result as never;
    });
  });
  return { [Symbol.dispose]: () => spies.forEach((spy) => spy.mockRestore()) };
}

/** Without a trace: what was closed a moment ago may still be there. */
function untilGone(translating: TranslatingBackend, backend: SwitchingBackend): Promise<void> {
  const { pod } = harness.network;
  return expect
    .poll(async () => {
      await backend.settle(pod.netns, ALL);
      return translating.isPresent(pod.netns);
    })
    .toBe(false);
}

const hostNetns = () => harness.network.node.netns;

describe.each<[string, () => TranslatingBackend]>([
  ["nftables", () => new NftablesBackend({ hostNetns: hostNetns(), probeUid: undefined })],
  [
    "iptables",
    () => new IptablesBackend({ kind: "", hostNetns: hostNetns(), probeUid: undefined }),
  ],
])("between eBPF and %s", (_name, create) => {
  const make = () => {
    const translating = create();
    const ebpf = harness.backend;
    return { translating, backend: new SwitchingBackend({ translating, ebpf }) };
  };

  it("a pod is taken to eBPF without a cut", async () => {
    const { pod } = harness.network;
    const { translating, backend } = make();
    await using app = await TestServer.start(pod, ip("::"), APP_PORT);
    backend.prefer("translating");
    await backend.install(pod.netns, ALL);
    expect(backend.slotOf(pod.netns, ALL)).toBeUndefined();
    await using fixed = await listeners(false);
    const before = await connectAll(fixed, app);
    await talkAll(before);

    expect(backend.prefer("ebpf")).toBe(true);
    await backend.install(pod.netns, ALL);
    expect(backend.slotOf(pod.netns, ALL)).toBe(harness.backend.slotOf(pod.netns));
    await backend.settle(pod.netns, ALL);
    const meanwhile = await connectAll(fixed, app);

    await using steered = await listeners(true);
    await backend.settle(pod.netns, ALL);
    expect(await backend.verify(pod.netns, ALL)).toBe("ok");
    const after = await connectAll(steered, app);
    for (const pairs of [before, meanwhile, after]) await talkAll(pairs);
    expect(await translating.isPresent(pod.netns)).toBe(true);

    destroyAll([...before, ...meanwhile]);
    await untilGone(translating, backend);
    await talkAll(after);
    destroyAll([...(await connectAll(steered, app)), ...after]);
    await backend.remove(pod.netns);
  });

  it("nothing slips between the steps in which a pod is taken to eBPF, or back", async () => {
    const { pod, other, node } = harness.network;
    const { backend } = make();
    await using outside = await TestServer.start(node, OUTSIDE.ip4, 80);
    await using app = await TestServer.start(pod, ip("::"), APP_PORT);
    backend.prefer("translating");
    await backend.install(pod.netns, ALL);
    await using fixed = await listeners(false);
    backend.prefer("ebpf");
    await backend.install(pod.netns, ALL);
    await using steered = await listeners(true);

    const deliveries: net.Socket[] = [];
    const calls: net.Socket[] = [];
    const inBetween = () => {
      calls.push(connectApp(pod, OUTSIDE.ip4, 80));
      using _ = harness.asProxy();
      deliveries.push(connectApp(pod, pod.ip4, APP_PORT, { prepare: asClient(other.ip4) }));
    };
    using _ = afterEachWrite(harness.node.steering, inBetween);
    await backend.settle(pod.netns, ALL);
    backend.prefer("translating");
    await backend.install(pod.netns, ALL);
    await backend.settle(pod.netns, ALL);

    expect(deliveries.length).toBeGreaterThanOrEqual(4);
    for (const delivery of deliveries) await talk(delivery, await app.next());
    const captured = () => fixed.OUTBOUND.connectionCount + steered.OUTBOUND.connectionCount;
    await expect.poll(captured).toBe(calls.length);
    expect(outside.connectionCount).toBe(0);
    expect(fixed.PLAINTEXT.connectionCount + steered.PLAINTEXT.connectionCount).toBe(0);
    for (const socket of [...calls, ...deliveries]) socket.destroy();
    await backend.remove(pod.netns);
  });

  it("a pod is taken from eBPF without a cut", async () => {
    const { pod } = harness.network;
    const { translating, backend } = make();
    await using app = await TestServer.start(pod, ip("::"), APP_PORT);
    await backend.install(pod.netns, ALL);
    await using steered = await listeners(true);
    await backend.settle(pod.netns, ALL);
    const before = await connectAll(steered, app);

    expect(backend.prefer("translating")).toBe(true);
    await backend.install(pod.netns, ALL);
    const meanwhile = await connectAll(steered, app);
    await using fixed = await listeners(false);
    await backend.settle(pod.netns, ALL);
    expect(harness.backend.isActive(pod.netns)).toBe(false);
    expect(await backend.verify(pod.netns, ALL)).toBe("ok");
    const after = await connectAll(fixed, app);
    for (const pairs of [before, meanwhile, after]) await talkAll(pairs);
    for (const pairs of [before, meanwhile, after]) destroyAll(pairs);
    await backend.remove(pod.netns);
    expect(await translating.verify(pod.netns, ALL)).toBe("absent");
  });

  it("a pod with interfaces of its own takes the translation, whatever the node takes", async () => {
    const { pod } = harness.network;
    const { translating, backend } = make();
    const wanted = { ...ALL, virtualInterfaces: ["tap0"] };
    await backend.install(pod.netns, wanted);
    expect(backend.slotOf(pod.netns, wanted)).toBeUndefined();
    expect(await translating.isPresent(pod.netns)).toBe(true);
    await backend.remove(pod.netns);
  });
});
