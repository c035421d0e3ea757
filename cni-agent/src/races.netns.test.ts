// What happens in an unlucky order: pods that change while they are enrolled, namespaces that are used
// again, agents and ztunnels that are away at the wrong moment. Each ends as if the order had been lucky.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AgentLab, NAMESPACE, POD } from "./testing/agent-lab.ts";
import { dial, ip, OUTSIDE, TestServer } from "./testing/test-network.ts";

const SOON = { timeout: 8_000, interval: 5 };
const MODE = "istio.io/dataplane-mode";
const BYPASS_INBOUND = "ambient.istio.io/bypass-inbound-capture";
/** A second address of the pod's, in its own network. */
const LATER = ip("10.77.1.9");

let lab: AgentLab;

beforeEach(async () => {
  lab = await AgentLab.create();
});
afterEach(() => lab.remove());

const left = async () => {
  await lab.untilRedirection(undefined);
  await lab.untilRules("absent");
  await expect.poll(() => lab.exempt(), SOON).toEqual([]);
};

describe("a pod that changes while it is enrolled", () => {
  it("is not complained of before it has an address and a namespace", async () => {
    await lab.setMode("ambient");
    await lab.putPod(lab.network.pod, { ips: [], netns: "/run/netns/absent" });
    await lab.startAgent();
    const ztunnel = lab.startZtunnel();
    await ztunnel.saw("snapshot");
    await lab.app.whenIdle();
    expect(await lab.metrics()).not.toContain("ambit_cni_failures_total{");
    await lab.putPod(lab.network.pod);
    await lab.untilRedirection("enabled");
  });

  it("is captured before it has an address when its namespace is known", async () => {
    await lab.setMode("ambient");
    await lab.putPod(lab.network.pod, { ips: [] });
    await lab.startAgent();
    lab.startZtunnel();
    await lab.untilRules("ok");
  });

  it("and is deleted before ztunnel has answered leaves nothing behind", async () => {
    await lab.setMode("ambient");
    await lab.startAgent();
    const ztunnel = lab.startZtunnel();
    ztunnel.answer = ({ type }) => (type === "add" ? undefined : "");
    await ztunnel.saw("add uid-1");
    await lab.store.delete(POD);
    ztunnel.answer = () => "";
    ztunnel.acknowledge("");
    await ztunnel.saw("del uid-1");
    await expect.poll(() => lab.exempt(), SOON).toEqual([]);
    await lab.app.whenIdle();
    expect(lab.store.get(POD)).toBeUndefined();
    expect(await lab.metrics()).toContain("ambit_cni_enrolled_pods 0");
  });

  it("and is replaced by one of the same name before ztunnel has answered ends with that", async () => {
    await lab.setMode("ambient");
    await lab.startAgent();
    const ztunnel = lab.startZtunnel();
    ztunnel.answer = ({ uid }) => (uid === "uid-1" ? undefined : "");
    await ztunnel.saw("add uid-1");
    await lab.store.delete(POD);
    await lab.putPod(lab.network.other, { uid: "uid-2" });
    ztunnel.answer = () => "";
    ztunnel.acknowledge("");
    await ztunnel.saw("del uid-1");
    await lab.untilRedirection("enabled");
    expect(ztunnel.log.at(-1)).toBe("add uid-2");
    await expect
      .poll(() => lab.exempt(), SOON)
      .toEqual([lab.network.other.ip4, lab.network.other.ip6]);
  });

  it("ends as its label says at last, however often it flips", async () => {
    await lab.startAgent();
    lab.startZtunnel();
    for (let flip = 0; flip < 6; flip++) {
      await lab.setMode("ambient");
      await lab.setMode("none");
    }
    await lab.app.whenIdle();
    await left();
    await lab.setMode("ambient");
    await lab.untilRedirection("enabled");
    expect(await lab.rules()).toBe("ok");
  });

  it("has its new addresses exempted and the former ones not", async () => {
    await lab.enrolled();
    lab.network.sh(`ip -n $POD addr add ${LATER}/24 dev eth0`);
    await lab.putPod(lab.network.pod, {
      ips: [LATER],
      annotations: { "ambient.istio.io/redirection": "enabled" },
    });
    await expect.poll(() => lab.exempt(), SOON).toEqual([LATER]);
    await lab.untilCapture("proven");
  });

  it("is captured anew when its sandbox was made anew: same pod, other namespace", async () => {
    const ztunnel = await lab.enrolled();
    await lab.putPod(lab.network.other, {
      annotations: { "ambient.istio.io/redirection": "enabled" },
    });
    const { netns } = lab.network.other;
    await ztunnel.until(() => ztunnel.requests.at(-1)!.netnsInode === netns.inode);
    await lab.untilCapture("proven");
    const all = { dnsCapture: true, inboundCapture: true, virtualInterfaces: [], ipv6: true };
    expect(await lab.backend.verify(netns, all)).toBe("ok");
    expect(lab.redirection).toBe("enabled");
  });

  it("has inbound connections captured or not as its annotation says now", async () => {
    await lab.enrolled();
    const wanted = (inboundCapture: boolean) => () =>
      lab.backend.verify(lab.network.pod.netns, {
        dnsCapture: true,
        inboundCapture,
        virtualInterfaces: [],
        ipv6: true,
      });
    await lab.setAnnotation(BYPASS_INBOUND, "true");
    await expect.poll(wanted(false), SOON).toBe("ok");
    await lab.setAnnotation(BYPASS_INBOUND, "false");
    await expect.poll(wanted(true), SOON).toBe("ok");
  });
});

describe("events in another order", () => {
  it("enrol pods whose namespace is known only later", async () => {
    await lab.store.delete(NAMESPACE);
    await lab.startAgent();
    lab.startZtunnel();
    await lab.app.whenIdle();
    expect(lab.redirection).toBeUndefined();
    await lab.store.put({
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: "shop", labels: { [MODE]: "ambient" } },
    });
    await lab.untilRedirection("enabled");
  });

  it("let a pod go whose namespace is deleted first", async () => {
    await lab.enrolled();
    await lab.store.delete(NAMESPACE);
    await left();
  });
});

describe("an agent that was away", () => {
  it("captures what was labelled meanwhile, before any ztunnel is there", async () => {
    await lab.startAgent();
    await lab.app.stop();
    await lab.setMode("ambient");
    await using outside = await TestServer.start(lab.network.node, ip("::"), 80);
    await lab.startAgent();
    await lab.untilRules("ok");
    await expect(dial(lab.network.pod, OUTSIDE.ip4, 80)).rejects.toThrow("ECONNREFUSED");
    expect(outside.connectionCount).toBe(0);
    expect(lab.redirection).toBe("pending");
    lab.startZtunnel();
    await lab.untilRedirection("enabled");
  });

  it("exempts the successor of a pod, and not the pod that is gone", async () => {
    await lab.enrolled();
    await lab.app.stop();
    await lab.store.delete(POD);
    await lab.putPod(lab.network.other, { uid: "uid-2" });
    await lab.startAgent();
    const ztunnel = lab.startZtunnel();
    await ztunnel.saw("snapshot");
    await lab.untilRedirection("enabled");
    expect(ztunnel.log).not.toContain("add uid-1");
    await expect
      .poll(() => lab.exempt(), SOON)
      .toEqual([lab.network.other.ip4, lab.network.other.ip6]);
  });

  it("does not prune exemptions while it does not know every enrolled pod's address", async () => {
    await lab.enrolled();
    const before = await lab.exempt();
    await lab.app.stop();
    await lab.putPod(lab.network.pod, {
      ips: [],
      netns: "/run/netns/absent",
      annotations: { "ambient.istio.io/redirection": "enabled" },
    });
    await lab.startAgent();
    expect(await lab.exempt()).toEqual(before);
    expect(await lab.rules()).toBe("ok");
  });

  it("lets go of pods of a namespace that is excluded now", async () => {
    await lab.enrolled();
    await lab.app.stop();
    await lab.startAgent({ EXCLUDE_NAMESPACES: "kube-system,shop" });
    await left();
  });

  it("and ends after its successor has started does not take its socket away", async () => {
    await lab.setMode("ambient");
    await lab.startAgent();
    const former = lab.app;
    await lab.startAgent();
    await former.stop();
    lab.startZtunnel();
    await lab.untilRedirection("enabled");
  });
});
