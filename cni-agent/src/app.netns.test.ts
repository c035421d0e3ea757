import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hasInetTable } from "@ambit/common/sys/netlink-nftables.ts";
import { NAT_TABLE } from "./rules/wire.ts";
import { AgentLab, ALL, POD } from "./testing/agent-lab.ts";
import { dial, OUTSIDE, TestServer } from "./testing/test-network.ts";
import { ip } from "./testing/test-network.ts";

let lab: AgentLab;

beforeEach(async () => {
  lab = await AgentLab.create();
});
afterEach(() => lab.remove());

describe("enrolling", () => {
  it("takes well under a second from label to captured traffic, without a restart", async () => {
    await lab.startAgent();
    const connected = lab.startZtunnel();
    await connected.saw("snapshot");
    expect(lab.redirection).toBeUndefined();
    expect(await lab.rules()).toBe("absent");
    const startMs = performance.now();
    await lab.setMode("ambient");
    await lab.untilRedirection("enabled");
    expect(performance.now() - startMs).toBeLessThan(1_000);
    expect(await lab.rules()).toBe("ok");
    expect(connected.log).toEqual(["snapshot", "add uid-1"]);
    expect(connected.requests[1]!.netnsInode).toBe(lab.network.pod.netns.inode);
    expect(await lab.exempt()).toEqual([lab.network.pod.ip4, lab.network.pod.ip6]);
    const captured = connected.connections.length;
    const client = await dial(lab.network.pod, OUTSIDE.ip4, 80);
    await connected.until(() => connected.connections.length > captured);
    client.destroy();
  });

  it("captures before ztunnel is there, says pending, and goes on as soon as it comes", async () => {
    await lab.setMode("ambient");
    await lab.startAgent();
    await lab.untilCapture("unproven: no ztunnel is connected");
    expect(lab.redirection).toBe("pending");
    expect(await lab.rules()).toBe("ok");
    await using outside = await TestServer.start(lab.network.node, ip("::"), 80);
    await expect(dial(lab.network.pod, OUTSIDE.ip4, 80)).rejects.toThrow("ECONNREFUSED");
    expect(outside.connectionCount).toBe(0);
    lab.startZtunnel();
    await lab.untilRedirection("enabled");
    expect(lab.lines.filter((line) => line.includes("ztunnel-absent"))).toHaveLength(1);
  });

  it("has ztunnel listen before anything is captured", async () => {
    const { netns } = lab.network.pod;
    await lab.startAgent();
    const ztunnel = lab.startZtunnel();
    await ztunnel.saw("snapshot");
    let captured: boolean | undefined;
    ztunnel.answer = () => {
      captured ??= hasInetTable(netns.fd, NAT_TABLE);
      return "";
    };
    await lab.setMode("ambient");
    await lab.untilRedirection("enabled");
    expect(captured).toBe(false);
    expect(await lab.rules()).toBe("ok");
  });

  it("captures all the same when ztunnel does not answer, and tells it once", async () => {
    await lab.setMode("ambient");
    await lab.startAgent();
    const silent = lab.startZtunnel();
    silent.answer = ({ type }) => (type === "add" ? undefined : "");
    await silent.saw("add uid-1");
    await lab.untilRules("ok");
    expect(lab.redirection).toBe("pending");
    await using outside = await TestServer.start(lab.network.node, ip("::"), 80);
    await expect(dial(lab.network.pod, OUTSIDE.ip4, 80)).rejects.toThrow("ECONNREFUSED");
    expect(outside.connectionCount).toBe(0);
    expect(silent.log.filter((line) => line === "add uid-1")).toHaveLength(1);
  });

  it("stays pending while ztunnel refuses the pod", async () => {
    await lab.setMode("ambient");
    await lab.startAgent();
    const refusing = lab.startZtunnel();
    refusing.answer = ({ type }) => (type === "add" ? "failure to start proxy" : "");
    await lab.untilRedirection("pending");
    await refusing.saw("add uid-1");
    expect(lab.redirection).toBe("pending");
    refusing.answer = () => "";
    await lab.untilRedirection("enabled");
  });

  it("follows a pod's annotations at run time", async () => {
    await lab.enrolled();
    await lab.setAnnotation("ambient.istio.io/dns-capture", "false");
    await expect
      .poll(() => lab.backend.verify(lab.network.pod.netns, { ...ALL, dnsCapture: false }))
      .toBe("ok");
    expect(lab.redirection).toBe("enabled");
  });

  it("leaves a pod alone that lives on another node", async () => {
    await lab.setMode("ambient");
    await lab.startAgent({ NODE_NAME: "node-2" });
    await lab.app.whenIdle();
    expect(await lab.rules()).toBe("absent");
    expect(lab.redirection).toBeUndefined();
  });
});

describe("leaving", () => {
  const left = async () => {
    await lab.untilRedirection(undefined);
    expect(await lab.rules()).toBe("absent");
    expect(await lab.exempt()).toEqual([]);
  };

  it("removes rules, exemption and annotation when the label goes", async () => {
    const connected = await lab.enrolled();
    await lab.setMode("none");
    await left();
    await connected.saw("del uid-1");
  });

  it("works as well while ztunnel is down", async () => {
    (await lab.enrolled()).close();
    await lab.setMode(undefined);
    await left();
  });

  it("is done when an agent that was away comes back", async () => {
    await lab.enrolled();
    await lab.app.stop();
    await lab.setMode("none");
    await lab.startAgent();
    await left();
  });

  it("does not wait for a pod's namespace that went with the pod", async () => {
    const connected = await lab.enrolled();
    lab.network.sh("ip netns del $POD; ip netns add $POD");
    await lab.store.delete(POD);
    await connected.saw("del uid-1");
    await expect.poll(() => lab.exempt()).toEqual([]);
  });

  it("cleans up after a pod that has ended", async () => {
    const connected = await lab.enrolled();
    await lab.putPod(lab.network.pod, { phase: "Succeeded" });
    await connected.saw("del uid-1");
    await lab.untilRedirection(undefined);
  });

  it("tells ztunnel of both when a pod is replaced by one of the same name", async () => {
    const connected = await lab.enrolled();
    await lab.store.delete(POD);
    await lab.putPod(lab.network.other, { uid: "uid-2" });
    await connected.saw("add uid-2");
    await connected.saw("del uid-1");
    await lab.untilRedirection("enabled");
    expect(connected.requests.at(-1)!.netnsInode).toBe(lab.network.other.netns.inode);
    await expect.poll(() => lab.exempt()).toEqual([lab.network.other.ip4, lab.network.other.ip6]);
  });
});

describe("starting again", () => {
  it("finds the pod enrolled and mends its rules before ztunnel gets its snapshot", async () => {
    await lab.enrolled();
    await lab.app.stop();
    lab.network.sh("ip netns exec $POD nft flush chain inet istio-ambient-nat istio-output");
    lab.network.sh("ip netns exec $NODE nft delete table inet istio-ambient-nat");
    await lab.startAgent();
    expect(await lab.rules()).toBe("ok");
    expect(await lab.exempt()).toEqual([lab.network.pod.ip4, lab.network.pod.ip6]);
    const connected = lab.startZtunnel();
    await connected.saw("snapshot");
    expect(connected.log).toEqual(["add uid-1", "snapshot"]);
    expect(lab.redirection).toBe("enabled");
  });

  it("leaves everything in place when it stops", async () => {
    await lab.enrolled();
    await lab.app.stop();
    expect(await lab.rules()).toBe("ok");
    expect(lab.redirection).toBe("enabled");
  });

  it("has ztunnel keep a pod whose namespace it cannot find", async () => {
    await lab.enrolled();
    await lab.app.stop();
    await lab.setAnnotation("ambit.io/netns", "/run/netns/absent");
    await lab.startAgent();
    const connected = lab.startZtunnel();
    await connected.saw("snapshot");
    expect(connected.log).toEqual(["keep uid-1", "snapshot"]);
    expect(lab.redirection).toBe("enabled");
    await lab.setAnnotation("ambit.io/netns", lab.network.pod.path);
    await connected.saw("add uid-1");
  });

  it("gives a ztunnel that was restarted the whole snapshot", async () => {
    (await lab.enrolled()).close();
    const again = lab.startZtunnel();
    await again.saw("snapshot");
    expect(again.log).toEqual(["add uid-1", "snapshot"]);
    expect(lab.redirection).toBe("enabled");
  });
});

describe("servers", () => {
  it("tell readiness, and Istio's metrics", async () => {
    await lab.enrolled();
    const get = async (path: string) =>
      await (await fetch(`http://127.0.0.1:${lab.app.healthPort}${path}`)).text();
    expect(await get("/readyz")).toBe("ready\n");
    expect(await get("/healthz")).toBe("ok\n");
    const metrics = await lab.metrics();
    expect(metrics).toContain("ztunnel_connected 1");
    expect(metrics).toContain("ambit_cni_enrolled_pods 1");
    expect(metrics).toContain("ambit_cni_proven_pods 1");
    expect(metrics).toContain('nodeagent_reconcile_events_total{type="add"}');
    expect(lab.lines.some((line) => line.includes("pod enrolled"))).toBe(true);
  });
});
