import { beforeEach, describe, expect, it, vi } from "vitest";
import { Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import type { DirectFlow } from "@ambit/common/sys/bpf-direct.ts";
import { serves, TestMesh } from "../state/testing-mesh.ts";
import { directFlow, DirectTestLab, endedFlow, ip, tcpSocket } from "../testing/direct-lab.ts";
import { FlowAccounts } from "./flow-accounts.ts";
import { flowId } from "./flow-facts.ts";

const CLIENT = { ip: ip("10.0.0.1"), port: 5000 };
const ONE = { ip: ip("10.0.0.2"), port: 8080 };
const WEB = { ip: ip("10.96.0.1"), port: 80 };

let mesh: TestMesh;
let lab: DirectTestLab;
let accounts: FlowAccounts;
let unseen: string[];
beforeEach(() => open());

/** `level`: what is written of access lines. */
function open(level: "info" | "error" = "info"): void {
  mesh = new TestMesh()
    .service("web", ["10.96.0.1"])
    .workload("client", [CLIENT.ip])
    .workload("one", [ONE.ip], { services: serves("web") });
  lab = new DirectTestLab(mesh, ["client", "one"], {}, level);
  unseen = [];
  accounts = new FlowAccounts(lab.context, lab.kernel, ({ pod }) => unseen.push(pod.info.name));
  accounts.know(lab.context.direct.pods);
}

const flow = (changes: Partial<DirectFlow> = {}) =>
  directFlow(lab, { source: CLIENT, destination: ONE, ...changes });
const lines = () => lab.context.lines().filter(({ message }) => message === "connection complete");
const metric = (name: string, reporter: string) =>
  lab.context.telemetry.metrics
    .collect()
    .find((family) => family.name === name)
    ?.values.filter(({ labels }) => labels["reporter"] === reporter)
    .reduce((sum, { value }) => sum + value, 0);

const usage = (name: string) =>
  [...lab.context.direct.pods].find(({ pod }) => pod.info.name === name)!.pod.account.usage();

describe("a connection that has ended", () => {
  it("has an access line on each side, with what it carried and how long it took", () => {
    const ended = flow({ service: WEB, startedNs: 1_000_000_000n });
    lab.kernel.ended.push(endedFlow(ended, { received: 10, sent: 20, endedNs: 1_250_000_000n }));
    accounts.readEnded();
    const both = {
      "src.addr": "10.0.0.1:5000",
      "src.workload": "client",
      "src.identity": "spiffe://cluster.local/ns/ns/sa/client",
      "dst.addr": "10.0.0.2:8080",
      "dst.service": "web.ns.svc.cluster.local",
      "dst.workload": "one",
      "dst.identity": "spiffe://cluster.local/ns/ns/sa/one",
      duration: "250ms",
      path: "direct",
      id: flowId(ended),
    };
    expect(lines()).toMatchObject([
      { ...both, direction: "outbound", bytes_sent: 10, bytes_recv: 20 },
      { ...both, direction: "inbound", bytes_sent: 20, bytes_recv: 10 },
    ]);
  });

  it.each(["info", "error"] as const)("is counted at log level %s", (level) => {
    open(level);
    for (let i = 0; i < 3; i++) {
      lab.kernel.ended.push(endedFlow(flow({ cookie: BigInt(i) }), { received: 10, sent: 20 }));
    }
    accounts.readEnded();
    for (const reporter of ["source", "destination"]) {
      expect(metric("istio_tcp_connections_opened", reporter)).toBe(3);
      expect(metric("istio_tcp_connections_closed", reporter)).toBe(3);
      expect(metric("istio_tcp_received_bytes", reporter)).toBe(30);
      expect(metric("istio_tcp_sent_bytes", reporter)).toBe(60);
    }
    expect(lines()).toHaveLength(level === "info" ? 6 : 0);
    const over = { inbound: 0, outbound: 0, opened: 3, refused: 0, cpuSeconds: 0 };
    expect(usage("client")).toEqual({ ...over, sentBytes: 30, receivedBytes: 60 });
    expect(usage("one")).toEqual({ ...over, sentBytes: 60, receivedBytes: 30 });
  });

  it.each([
    ["and the mesh forbids it", true, true, { reason: "POLICY_CHANGED", level: "error" }],
    ["though the mesh has nothing against it", false, true, { level: "info" }],
    ["while the mesh came to forbid it, but in good order", true, false, { level: "info" }],
  ])("tells why when it was cut %s", (_, forbidden, aborted, told) => {
    if (forbidden) mesh.policy("deny", { scope: Scope.NAMESPACE, rules: [] });
    lab.kernel.ended.push(endedFlow(flow(), { received: 1, sent: 1, aborted }));
    accounts.readEnded();
    expect(lines()).toMatchObject([told, told]);
    expect("reason" in lines()[0]!).toBe("reason" in told);
  });

  it("is told of pods that have left meanwhile, which explains that it was cut", () => {
    lab.context.direct.removePod(lab.context, "uid-client");
    accounts.know(lab.context.direct.pods);
    lab.kernel.ended.push(endedFlow(flow(), { received: 1, sent: 1, aborted: true }));
    accounts.readEnded();
    expect(lines()).toMatchObject([{ reason: "POD_REMOVED" }, { reason: "POD_REMOVED" }]);
  });

  it("is passed over when its pods were never known", () => {
    lab.kernel.ended.push(endedFlow(flow({ netns: 1n }), { received: 1, sent: 1 }));
    accounts.readEnded();
    expect(lines()).toEqual([]);
  });
});

describe("a connection that lives", () => {
  it("is listed with what it has carried so far, and counted as opened", () => {
    const live = flow({ service: WEB });
    lab.kernel.live = [live];
    lab.kernel.sockets = [tcpSocket(CLIENT, ONE)];
    const common = {
      id: flowId(live),
      src: "10.0.0.1:5000",
      originalDst: "10.96.0.1:80",
      actualDst: "10.0.0.2:8080",
      protocol: "DIRECT",
    };
    expect(accounts.summaries()).toEqual([
      {
        ...common,
        direction: "outbound",
        workload: "c//Pod/ns/client",
        bytesSent: 10,
        bytesReceived: 20,
      },
      {
        ...common,
        direction: "inbound",
        workload: "c//Pod/ns/one",
        bytesSent: 20,
        bytesReceived: 10,
      },
    ]);
    expect(metric("istio_tcp_connections_opened", "source")).toBe(1);
    expect(metric("istio_tcp_connections_closed", "source")).toBeUndefined();
    expect(metric("istio_tcp_received_bytes", "source")).toBe(10);
    const lives = { outbound: 1, inbound: 0, opened: 1, sentBytes: 10, receivedBytes: 20 };
    expect(usage("client")).toMatchObject(lives);
    const mirrored = { outbound: 0, inbound: 1, opened: 1, sentBytes: 20, receivedBytes: 10 };
    expect(usage("one")).toMatchObject(mirrored);
  });

  it("is counted once, whether it was seen before its end or not", () => {
    const live = flow();
    lab.kernel.live = [live];
    lab.kernel.sockets = [tcpSocket(CLIENT, ONE)];
    accounts.sync();
    lab.kernel.live = [];
    lab.kernel.ended.push(endedFlow(live, { received: 11, sent: 22 }));
    accounts.sync();
    expect(metric("istio_tcp_connections_opened", "source")).toBe(1);
    expect(metric("istio_tcp_connections_closed", "source")).toBe(1);
    expect(metric("istio_tcp_received_bytes", "source")).toBe(11);
    expect(accounts.summaries()).toEqual([]);
    const over = { outbound: 0, opened: 1, sentBytes: 11, receivedBytes: 22 };
    expect(usage("client")).toMatchObject(over);
  });

  it("ends with what was last known when nobody tells of its end", () => {
    lab.kernel.live = [flow()];
    lab.kernel.sockets = [tcpSocket(CLIENT, ONE)];
    accounts.sync();
    lab.kernel.live = [];
    accounts.sync();
    expect(lines()).toMatchObject([{ bytes_sent: 10 }, { bytes_sent: 20 }]);
  });
});

describe("a call that the programs did not see answered", () => {
  it.each([
    ["though the destination has a socket", 1_001, true, ["one"]],
    ["a moment ago", 500, true, []],
    ["because nobody has", 1_001, false, []],
  ])("%s", (_, ago, hasSocket, expected) => {
    const startedNs = process.hrtime.bigint() - BigInt(ago) * 1_000_000n;
    lab.kernel.live = [flow({ accepted: false, startedNs })];
    lab.kernel.sockets = hasSocket ? [tcpSocket(CLIENT, ONE)] : [];
    accounts.sync();
    expect(unseen).toEqual(expected);
  });
});

describe("what the kernel has left behind", () => {
  const agoNs = (ms: number) => process.hrtime.bigint() - BigInt(ms) * 1_000_000n;

  it.each([
    ["a call that was never answered", { accepted: false }, []],
    ["a connection without a socket", { accepted: true }, []],
  ])("is forgotten: %s", (_, changes, sockets) => {
    lab.kernel.live = [
      flow({ ...changes, startedNs: agoNs(31_000) }),
      flow({ ...changes, startedNs: agoNs(20_000) }),
    ];
    lab.kernel.sockets = sockets;
    accounts.sync();
    expect(lab.kernel.live).toHaveLength(1);
  });

  it.each([
    ["merely old", { accepted: true }],
    ["one that the programs did not see answered", { accepted: false }],
  ])("is not a connection that is %s", (_, changes) => {
    lab.kernel.live = [flow({ ...changes, startedNs: agoNs(3_600_000) })];
    lab.kernel.sockets = [tcpSocket(CLIENT, ONE)];
    accounts.sync();
    expect(lab.kernel.live).toHaveLength(1);
  });

  it("is what its client has not closed a minute after its server", () => {
    vi.useFakeTimers({ toFake: ["hrtime"] });
    const closed = flow({ closed: true });
    lab.kernel.live = [closed];
    accounts.sync();
    vi.advanceTimersByTime(59_000);
    accounts.sync();
    expect([lab.kernel.live, accounts.summaries()]).toEqual([[closed], []]);
    vi.advanceTimersByTime(2_000);
    accounts.sync();
    expect(lab.kernel.live).toEqual([]);
    vi.useRealTimers();
  });
});
