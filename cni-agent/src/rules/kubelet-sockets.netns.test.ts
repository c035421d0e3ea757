// Probes known by kubelet's sockets: they reach the application as they are, and nobody else's do.

import { spawn } from "node:child_process";
import { mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import { ownCgroups } from "@ambit/common/sys/cgroup.ts";
import { connectApp, openAppSocket, bindTo, connectFd, wrap } from "../testing/app-socket.ts";
import { type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { ANY, APP_PORT, FAMILIES, refused } from "../testing/redirection-cases/shared.ts";
import { talk, TestServer } from "../testing/test-network.ts";
import { KubeletSockets } from "./kubelet-sockets.ts";
import { PROBE_IPV4 } from "./wire.ts";

let harness: EbpfHarness;
beforeAll(() => {
  harness = ebpfHarness();
});
afterEach(() => harness.reset());
afterAll(() => harness.close());

/** A process that does nothing, in a cgroup. */
class Process implements Disposable {
  readonly #child = spawn("sleep", ["600"], { stdio: "ignore" });

  constructor(cgroup: string) {
    writeFileSync(join(cgroup, "cgroup.procs"), `${this.#child.pid}`);
  }

  async end(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }

  [Symbol.dispose](): void {
    this.#child.kill("SIGKILL");
  }
}

/** The pod is captured, and kubelet may probe it. */
async function enrol(): Promise<void> {
  const { backend, install, network, slot } = harness;
  await install();
  const target = { uid: "uid-1", slot: slot() };
  await backend.installHost(
    new Map([
      [network.pod.ip4, target],
      [network.pod.ip6, target],
    ]),
  );
}

const asKubelet = () => harness.cgroups.enter(harness.cgroups.kubelet);

describe("probes by kubelet's sockets", () => {
  it.each(FAMILIES)("reach the application over %s from the node's own address", async (f) => {
    const { network, node } = harness;
    await enrol();
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    using _ = asKubelet();
    const probe = connectApp(network.node, network.pod[f], APP_PORT);
    const accepted = await server.next();
    expect(parseIp(accepted.remoteAddress!)).toBe(network.node[f]);
    await talk(probe, accepted);
    expect(node.steering.counters().get("PASSED_PROBE")).toBeGreaterThan(0);
    probe.destroy();
  });

  it("reach it when kubelet writes IPv4 addresses as IPv6 ones", async () => {
    const { network } = harness;
    await enrol();
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    using _ = asKubelet();
    const probe = connectApp(network.node, network.pod.ip4, APP_PORT, { mapped: true });
    await talk(probe, await server.next());
    probe.destroy();
  });

  it("are told at once that nobody listens", async () => {
    const { network } = harness;
    await enrol();
    using _ = asKubelet();
    expect(await refused(network.node, network.pod.ip4, APP_PORT)).toBe("ECONNREFUSED");
  });

  it.each(FAMILIES)("are no one else's of the node's, same %s address or not", async (f) => {
    const { network, listen } = harness;
    await enrol();
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    await using ztunnel = await listen("PLAINTEXT");
    const other = connectApp(network.node, network.pod[f], APP_PORT);
    const captured = await ztunnel.next();
    expect(parseIp(captured.remoteAddress!)).toBe(network.node[f]);
    expect(server.connectionCount).toBe(0);
    other.destroy();
  });

  it("leave nothing to whoever takes the same port afterwards", async () => {
    const { network, listen } = harness;
    await enrol();
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    await using ztunnel = await listen("PLAINTEXT");
    const from = (cgroup: string) => {
      using _ = harness.cgroups.enter(cgroup);
      const fd = openAppSocket(network.node, network.pod.ip4);
      bindTo(fd, network.node.ip4, 23_456);
      connectFd(fd, network.pod.ip4, APP_PORT);
      return wrap(fd);
    };
    const probe = from(harness.cgroups.kubelet);
    await server.next();
    probe.resetAndDestroy();
    await once(probe, "close");
    const other = from(harness.cgroups.apps);
    await ztunnel.next();
    expect(server.connectionCount).toBe(1);
    other.destroy();
  });

  it("are made from the node's namespace: kubelet's elsewhere are captured", async () => {
    const { network, listen } = harness;
    await enrol();
    await using ztunnel = await listen("PLAINTEXT");
    using _ = asKubelet();
    const other = connectApp(network.other, network.pod.ip4, APP_PORT);
    await ztunnel.next();
    other.destroy();
  });

  it("end with the pod's being in the mesh", async () => {
    const { network, backend, listen, node } = harness;
    await enrol();
    await backend.installHost(new Map());
    expect(node.steering.probeTargets().size).toBe(0);
    await using ztunnel = await listen("PLAINTEXT");
    using _ = asKubelet();
    const probe = connectApp(network.node, network.pod.ip4, APP_PORT);
    await ztunnel.next();
    probe.destroy();
  });

  it("are known by address where the pod's addresses are translated", async () => {
    const { network, backend } = harness;
    await harness.install();
    await backend.installHost(new Map([[network.pod.ip4, { uid: "uid-1" }]]));
    await using server = await TestServer.start(network.pod, ANY, APP_PORT);
    using _ = asKubelet();
    const probe = connectApp(network.node, network.pod.ip4, APP_PORT);
    expect(parseIp((await server.next()).remoteAddress!)).toBe(PROBE_IPV4);
    probe.destroy();
  });
});

describe("kubelet's sockets", () => {
  const open = (cgroup: string | undefined, procFolder = "/proc") =>
    new KubeletSockets({ node: harness.node, cgroup, cgroups: ownCgroups()!, procFolder });

  it("are lost with its last process, and found again in its next cgroup", async () => {
    const folder = join(harness.cgroups.node, "kubelet.service");
    mkdirSync(folder);
    const first = new Process(folder);
    using sockets = open(folder);
    expect(sockets.problem).toBeUndefined();
    const lost = new Promise<void>((resolve) => (sockets.onChange = resolve));
    await first.end();
    await lost;
    expect(sockets.problem).toMatchObject({ check: "kubelet" });
    expect(harness.node.pins.names("kubelets")).toEqual([]);
    rmdirSync(folder);
    sockets.refresh();
    expect(sockets.problem).toMatchObject({ check: "kubelet-cgroup" });
    mkdirSync(folder);
    sockets.refresh();
    expect(sockets.problem).toMatchObject({ check: "kubelet" });
    const second = new Process(folder);
    sockets.refresh();
    expect(sockets.problem).toBeUndefined();
    expect(harness.node.pins.names("kubelets")).toHaveLength(1);
    await second.end();
    rmdirSync(folder);
  });

  it.each<[string, () => string, RegExp]>([
    ["the pods", () => harness.cgroups.node, /holds the pods too/],
    ["the agent", () => harness.cgroups.apps, /holds the agent too/],
  ])("are not known in a cgroup that holds %s", (_name, cgroup, message) => {
    using sockets = open(cgroup());
    expect(sockets.problem?.check).toBe("kubelet-attach");
    expect(sockets.problem?.message).toMatch(message);
  });
});
