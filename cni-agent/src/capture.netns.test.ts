// That a pod is called enrolled only when a connection from inside it proved so, that nothing leaves it
// in plaintext before, and that rules which others change are found and put right.

import { create, toBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Version, ZdsHelloSchema } from "@ambit/api/gen/istio/zds_pb.ts";
import { AgentLab } from "./testing/agent-lab.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "./testing/test-network.ts";

const ISTIO_HELLO = toBinary(ZdsHelloSchema, create(ZdsHelloSchema, { version: Version.V1 }));

let lab: AgentLab;

beforeEach(async () => {
  lab = await AgentLab.create();
  await lab.setMode("ambient");
});
afterEach(() => lab.remove());

describe("a pod is enrolled", () => {
  it("only when ztunnel answered from inside it, on both families", async () => {
    const ztunnel = await lab.enrolled();
    expect(lab.capture).toBe("proven");
    expect(ztunnel.probed).toEqual(["uid-1", "uid-1"]);
  });

  it.each([
    ["nobody listens in it", "del", /captured, but no ztunnel listens in the pod/],
    ["another pod's ztunnel answers", "captured uid-2\n", /not this pod's ztunnel/],
    ["something else answers", "HTTP/1.1 400 Bad Request\r\n\r\n", /not this pod's ztunnel/],
    ["the answer never ends", "x".repeat(300), /not this pod's ztunnel/],
  ])("not while %s, and says so", async (_name, answer, reason) => {
    await lab.startAgent();
    const ztunnel = lab.startZtunnel();
    if (answer === "del") ztunnel.serves = false;
    ztunnel.probeAnswer = () => answer;
    await lab.untilCapture(reason);
    expect(lab.redirection).toBe("pending");
    expect(await lab.metrics()).toContain("ambit_cni_proven_pods 0");
    expect(await lab.metrics()).toContain('ambit_cni_failures_total{code="capture-unproven"}');
    ztunnel.probeAnswer = (uid) => `captured ${uid}\n`;
    if (answer !== "del") await lab.untilRedirection("enabled");
  });

  it("by Istio's ztunnel too, which accepts the probe and does not know it", async () => {
    await lab.startAgent();
    const ztunnel = lab.startZtunnel({ hello: ISTIO_HELLO });
    ztunnel.probeAnswer = () => undefined;
    await lab.untilRedirection("enabled");
  });

  it("and stays so while ztunnel is away: peers must not talk plain to it", async () => {
    const ztunnel = await lab.enrolled();
    ztunnel.close();
    await lab.setAnnotation("ambient.istio.io/dns-capture", "false");
    await lab.untilCapture(/^unproven/);
    expect(lab.redirection).toBe("enabled");
    await expect(dial(lab.network.pod, OUTSIDE.ip4, 80)).rejects.toThrow("ECONNREFUSED");
    lab.startZtunnel();
    await lab.untilCapture("proven");
  });

  it("by every ztunnel anew: a successor that does not serve it is found out", async () => {
    const before = await lab.enrolled();
    const successor = lab.startZtunnel();
    successor.probeAnswer = () => "";
    await successor.saw("snapshot");
    before.close();
    await lab.setAnnotation("ambient.istio.io/dns-capture", "false");
    await lab.untilCapture(/not this pod's ztunnel/);
    expect(lab.redirection).toBe("enabled");
    successor.probeAnswer = (uid) => `captured ${uid}\n`;
    await lab.untilCapture("proven");
  });
});

describe("nothing leaves in plaintext", () => {
  it("from the moment the pod is to be enrolled, whatever is down", async () => {
    await using outside = await TestServer.start(lab.network.node, ip("::"), 80);
    await lab.startAgent();
    await lab.untilRules("ok");
    for (const address of [OUTSIDE.ip4, OUTSIDE.ip6]) {
      await expect(dial(lab.network.pod, address, 80)).rejects.toThrow("ECONNREFUSED");
    }
    expect(lab.redirection).toBe("pending");
    expect(outside.connectionCount).toBe(0);
  });

  it("after a node restart: rules come before anything else", async () => {
    (await lab.enrolled()).close();
    await lab.app.stop();
    lab.network.sh("ip netns exec $POD nft flush ruleset");
    await using outside = await TestServer.start(lab.network.node, ip("::"), 80);
    await lab.startAgent();
    await expect(dial(lab.network.pod, OUTSIDE.ip4, 80)).rejects.toThrow("ECONNREFUSED");
    expect(outside.connectionCount).toBe(0);
  });
});

describe("an agent that was killed", () => {
  it("while it put rules in place takes them out when the pod is not wanted any more", async () => {
    await lab.enrolled();
    await lab.app.stop();
    await lab.setAnnotation("ambient.istio.io/redirection", "pending");
    await lab.setMode(undefined);
    await lab.startAgent();
    await lab.untilRedirection(undefined);
    expect(await lab.rules()).toBe("absent");
    expect(lab.capture).toBeUndefined();
  });
});

describe("rules that somebody changed", () => {
  const changes = [
    ["flushed everything", "nft flush ruleset"],
    ["let something past", "nft insert rule inet istio-ambient-nat istio-output accept"],
    ["took a table away", "nft delete table inet istio-ambient-mangle"],
    ["took the return route away", "ip route del local default table 100"],
    ["took the routing rule away", "ip rule del priority 32764"],
  ] as const;
  it.each(changes)("who %s are found at once and put right", async (_name, damage) => {
    await lab.enrolled();
    await lab.app.whenIdle();
    const startMs = performance.now();
    lab.network.sh(`ip netns exec $POD ${damage}`);
    await lab.untilRules("ok");
    expect(performance.now() - startMs).toBeLessThan(1_000);
    await expect.poll(() => lab.metrics()).toContain("ambit_cni_rules_repaired_total 1\n");
    await lab.untilCapture("proven");
  });

  it("are found by the audit when nothing tells of them", async () => {
    const ztunnel = await lab.enrolled({ CAPTURE_AUDIT_INTERVAL: "100ms" });
    const probes = ztunnel.probed.length;
    await ztunnel.until(() => ztunnel.probed.length >= probes + 4);
    expect(lab.redirection).toBe("enabled");
  });

  it("do not break connections when they are put right", async () => {
    const ztunnel = await lab.enrolled();
    const client = await dial(lab.network.pod, OUTSIDE.ip4, 80);
    await ztunnel.until(() => ztunnel.connections.length > 0);
    const served = ztunnel.connections.at(-1)!;
    await talk(client, served);
    lab.network.sh("ip netns exec $POD nft flush ruleset");
    await lab.untilRules("ok");
    await talk(client, served);
    client.destroy();
  });
});
