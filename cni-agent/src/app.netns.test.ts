import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Pod } from "@ambit/api/resources/kinds.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { type App, buildApp } from "./app.ts";
import { parseConfig } from "./config.ts";
import type { PodRedirection, RulesState } from "./rules/backend.ts";
import { NftablesBackend } from "./rules/nftables-backend.ts";
import { FakeZtunnel } from "./testing/fake-ztunnel.ts";
import {
  createTestNetwork,
  dial,
  ip,
  OUTSIDE,
  type TestNetwork,
  type TestPlace,
  TestServer,
} from "./testing/test-network.ts";

const MODE = "istio.io/dataplane-mode";
const REDIRECTION = "ambient.istio.io/redirection";
const POD = { kind: "Pod", namespace: "shop", name: "cart" } as const;
const NAMESPACE = { kind: "Namespace", namespace: "", name: "shop" } as const;
const ALL: PodRedirection = {
  dnsCapture: true,
  inboundCapture: true,
  virtualInterfaces: [],
  ipv6: true,
};

let folder: string;
let network: TestNetwork;
let store: FolderStore;
let backend: NftablesBackend;
let app: App | undefined;
let ztunnel: FakeZtunnel | undefined;
let lines: string[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "ambit-agent-"));
  network = createTestNetwork();
  store = new FolderStore(join(folder, "manifests"));
  backend = new NftablesBackend({ hostNetns: network.node.netns, probeUid: undefined });
  await store.put({ apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } });
  await putPod(network.pod);
});

afterEach(async () => {
  ztunnel?.close();
  ztunnel = undefined;
  await app?.stop();
  app = undefined;
  network.remove();
  rmSync(folder, { recursive: true });
});

async function putPod(place: TestPlace, changes: { uid?: string; phase?: "Succeeded" } = {}) {
  await store.put({
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: "cart",
      namespace: "shop",
      uid: changes.uid ?? "uid-1",
      annotations: { "ambit.io/netns": place.path },
    },
    spec: { nodeName: "node-1", serviceAccountName: "cart", containers: [{ name: "app" }] },
    status: {
      phase: changes.phase ?? "Running",
      podIP: place.ip4,
      podIPs: [{ ip: place.ip4 }, { ip: place.ip6 }],
    },
  });
}

async function startAgent(env: Record<string, string> = {}): Promise<void> {
  const memory = memoryLog("info");
  lines = memory.lines;
  const config = parseConfig({
    NODE_NAME: "node-1",
    MANIFESTS: store.folder,
    ZDS_ADDRESS: socketPath(),
    HOST_NETNS: network.node.path,
    BIND_ADDRESS: "127.0.0.1",
    METRICS_PORT: "0",
    HEALTH_PORT: "0",
    ...env,
  });
  app = await buildApp(config, memory.log);
}

function startZtunnel(): FakeZtunnel {
  ztunnel = new FakeZtunnel(socketPath());
  return ztunnel;
}

const socketPath = () => join(folder, "zds.sock");
const pod = (): Pod | undefined => store.get(POD);
const redirection = () => pod()?.metadata.annotations?.[REDIRECTION];
const rules = (): Promise<RulesState> => backend.verify(network.pod.netns, ALL);
const exempt = async (): Promise<Ip[]> => [...(await backend.readHost()).keys()];
const state = (expected: string | undefined) =>
  expect.poll(redirection, { timeout: 8_000, interval: 5 }).toBe(expected);

async function setMode(mode: string | undefined): Promise<void> {
  await store.patch(NAMESPACE, (namespace) => ({
    ...namespace,
    metadata: { ...namespace.metadata, labels: mode === undefined ? {} : { [MODE]: mode } },
  }));
}

async function setAnnotation(key: string, value: string): Promise<void> {
  await store.patch(POD, (resource) => ({
    ...resource,
    metadata: {
      ...resource.metadata,
      annotations: { ...resource.metadata.annotations, [key]: value },
    },
  }));
}

/** An enrolled pod with a connected ztunnel. */
async function enrolled(): Promise<FakeZtunnel> {
  await setMode("ambient");
  await startAgent();
  const connected = startZtunnel();
  await state("enabled");
  return connected;
}

describe("enrolling", () => {
  it("takes well under a second from label to captured traffic, without a restart", async () => {
    await startAgent();
    const connected = startZtunnel();
    await connected.saw("snapshot");
    expect(redirection()).toBeUndefined();
    expect(await rules()).toBe("absent");
    const startMs = performance.now();
    await setMode("ambient");
    await state("enabled");
    expect(performance.now() - startMs).toBeLessThan(1_000);
    expect(await rules()).toBe("ok");
    expect(connected.log).toEqual(["snapshot", "add uid-1"]);
    expect(connected.requests[1]!.netnsInode).toBe(network.pod.netns.inode);
    expect(await exempt()).toEqual([network.pod.ip4, network.pod.ip6]);
    await using listener = await TestServer.start(network.pod, ip("::"), 15001, 0x539);
    const client = await dial(network.pod, OUTSIDE.ip4, 80);
    await listener.next();
    client.destroy();
  });

  it("captures before ztunnel is there, says pending, and goes on as soon as it comes", async () => {
    await setMode("ambient");
    await startAgent();
    await state("pending");
    expect(await rules()).toBe("ok");
    await using outside = await TestServer.start(network.node, ip("::"), 80);
    await expect(dial(network.pod, OUTSIDE.ip4, 80)).rejects.toThrow("ECONNREFUSED");
    expect(outside.connectionCount).toBe(0);
    startZtunnel();
    await state("enabled");
    expect(lines.filter((line) => line.includes("ztunnel-absent"))).toHaveLength(1);
  });

  it("stays pending while ztunnel refuses the pod", async () => {
    await setMode("ambient");
    await startAgent();
    const refusing = startZtunnel();
    refusing.answer = ({ type }) => (type === "add" ? "failure to start proxy" : "");
    await state("pending");
    await refusing.saw("add uid-1");
    expect(redirection()).toBe("pending");
    refusing.answer = () => "";
    await state("enabled");
  });

  it("follows a pod's annotations at run time", async () => {
    await enrolled();
    await setAnnotation("ambient.istio.io/dns-capture", "false");
    await expect
      .poll(() => backend.verify(network.pod.netns, { ...ALL, dnsCapture: false }))
      .toBe("ok");
    expect(redirection()).toBe("enabled");
  });

  it("leaves a pod alone that lives on another node", async () => {
    await setMode("ambient");
    await startAgent({ NODE_NAME: "node-2" });
    await app!.whenIdle();
    expect(await rules()).toBe("absent");
    expect(redirection()).toBeUndefined();
  });
});

describe("leaving", () => {
  const left = async () => {
    await state(undefined);
    expect(await rules()).toBe("absent");
    expect(await exempt()).toEqual([]);
  };

  it("removes rules, exemption and annotation when the label goes", async () => {
    const connected = await enrolled();
    await setMode("none");
    await left();
    await connected.saw("del uid-1");
  });

  it("works as well while ztunnel is down", async () => {
    (await enrolled()).close();
    await setMode(undefined);
    await left();
  });

  it("is done when an agent that was away comes back", async () => {
    await enrolled();
    await app!.stop();
    await setMode("none");
    await startAgent();
    await left();
  });

  it("does not wait for a pod's namespace that went with the pod", async () => {
    const connected = await enrolled();
    network.sh("ip netns del $POD; ip netns add $POD");
    await store.delete(POD);
    await connected.saw("del uid-1");
    await expect.poll(exempt).toEqual([]);
  });

  it("cleans up after a pod that has ended", async () => {
    const connected = await enrolled();
    await putPod(network.pod, { phase: "Succeeded" });
    await connected.saw("del uid-1");
    await state(undefined);
  });

  it("tells ztunnel of both when a pod is replaced by one of the same name", async () => {
    const connected = await enrolled();
    await store.delete(POD);
    await putPod(network.other, { uid: "uid-2" });
    await connected.saw("add uid-2");
    await connected.saw("del uid-1");
    await state("enabled");
    expect(connected.requests.at(-1)!.netnsInode).toBe(network.other.netns.inode);
    await expect.poll(exempt).toEqual([network.other.ip4, network.other.ip6]);
  });
});

describe("starting again", () => {
  it("finds the pod enrolled and mends its rules before ztunnel gets its snapshot", async () => {
    await enrolled();
    await app!.stop();
    network.sh("ip netns exec $POD nft flush chain inet istio-ambient-nat istio-output");
    network.sh("ip netns exec $NODE nft delete table inet istio-ambient-nat");
    await startAgent();
    expect(await rules()).toBe("ok");
    expect(await exempt()).toEqual([network.pod.ip4, network.pod.ip6]);
    const connected = startZtunnel();
    await connected.saw("snapshot");
    expect(connected.log).toEqual(["add uid-1", "snapshot"]);
    expect(redirection()).toBe("enabled");
  });

  it("leaves everything in place when it stops", async () => {
    await enrolled();
    await app!.stop();
    expect(await rules()).toBe("ok");
    expect(redirection()).toBe("enabled");
  });

  it("has ztunnel keep a pod whose namespace it cannot find", async () => {
    await enrolled();
    await app!.stop();
    await setAnnotation("ambit.io/netns", "/run/netns/absent");
    await startAgent();
    const connected = startZtunnel();
    await connected.saw("snapshot");
    expect(connected.log).toEqual(["keep uid-1", "snapshot"]);
    expect(redirection()).toBe("enabled");
    await setAnnotation("ambit.io/netns", network.pod.path);
    await connected.saw("add uid-1");
  });

  it("gives a ztunnel that was restarted the whole snapshot", async () => {
    (await enrolled()).close();
    const again = startZtunnel();
    await again.saw("snapshot");
    expect(again.log).toEqual(["add uid-1", "snapshot"]);
    expect(redirection()).toBe("enabled");
  });
});

describe("servers", () => {
  it("tell readiness, and Istio's metrics", async () => {
    await enrolled();
    const get = async (port: number, path: string) =>
      await (await fetch(`http://127.0.0.1:${port}${path}`)).text();
    expect(await get(app!.healthPort, "/readyz")).toBe("ready\n");
    expect(await get(app!.healthPort, "/healthz")).toBe("ok\n");
    const metrics = await get(app!.metricsPort, "/metrics");
    expect(metrics).toContain("ztunnel_connected 1");
    expect(metrics).toContain("ambit_cni_enrolled_pods 1");
    expect(metrics).toContain('nodeagent_reconcile_events_total{type="add"}');
    expect(lines.some((line) => line.includes("pod enrolled"))).toBe(true);
  });
});
