// A pod that leaves the mesh while it talks: what was captured may finish, what is new is the pod's own,
// and no byte that was meant for ztunnel gets out in plain text.

import type net from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AgentLab, POD } from "./testing/agent-lab.ts";
import type { FakeZtunnel } from "./testing/fake-ztunnel.ts";
import { dial, ip, OUTSIDE, talk, TestServer } from "./testing/test-network.ts";

/** Longer than any test here lasts. */
const LONG = { UNENROLMENT_DRAIN: "60s" };
const SHORT = { UNENROLMENT_DRAIN: "1s" };

let lab: AgentLab;
let ztunnel: FakeZtunnel;

beforeEach(async () => {
  lab = await AgentLab.create();
});
afterEach(() => lab.remove());

/** A connection of the pod's that ztunnel has; both ends of its first half. */
async function captured(env: Record<string, string>): Promise<[net.Socket, net.Socket]> {
  ztunnel = await lab.enrolled(env);
  const before = ztunnel.connections.length;
  const app = await dial(lab.network.pod, OUTSIDE.ip4, 80);
  await ztunnel.until(() => ztunnel.connections.length > before);
  return [app, ztunnel.connections.at(-1)!];
}

/** Counts packets of the pod's that go to port 80 outside and belong to no connection made since. */
function countStrays(): () => string {
  lab.network.sh(`ip netns exec $NODE nft -f - <<EOF
table inet strays {
  chain input {
    type filter hook input priority 0;
    ip daddr ${OUTSIDE.ip4} tcp dport 80 counter comment "strays"
  }
}
EOF`);
  return () =>
    /packets (\d+) /.exec(lab.network.sh("ip netns exec $NODE nft list table inet strays"))![1]!;
}

describe("a pod that leaves", () => {
  it("keeps its connections for the drain time; new ones are its own at once", async () => {
    const [app, served] = await captured(SHORT);
    await lab.setMode("none");
    await lab.untilRedirection(undefined);
    expect(lab.capture).toBe("leaving");
    await talk(app, served);
    await using outside = await TestServer.start(lab.network.node, ip("::"), 80);
    const direct = await dial(lab.network.pod, OUTSIDE.ip4, 80);
    await talk(direct, await outside.next());
    await talk(app, served);
    expect(ztunnel.log).not.toContain("del uid-1");
    await ztunnel.saw("del uid-1");
    await lab.untilRules("absent");
    await expect.poll(() => lab.capture).toBeUndefined();
    direct.destroy();
  });

  it("lets no byte of a captured connection out, not even when ztunnel is gone", async () => {
    const [app] = await captured({});
    const strays = countStrays();
    app.on("error", () => {});
    const closed = new Promise((resolve) => app.once("close", resolve));
    const writing = setInterval(() => app.write("secret"), 1);
    await lab.setMode("none");
    await closed;
    clearInterval(writing);
    await lab.untilRules("absent");
    expect(strays()).toBe("0");
  });

  it("is captured again when it is wanted back meanwhile, and its connection goes on", async () => {
    const [app, served] = await captured(LONG);
    await lab.setMode("none");
    await lab.untilRedirection(undefined);
    await lab.setMode("ambient");
    await lab.untilRedirection("enabled");
    await lab.untilCapture("proven");
    expect(await lab.rules()).toBe("ok");
    await talk(app, served);
    expect(ztunnel.log).not.toContain("del uid-1");
    app.destroy();
  });

  it("leaves once, though its object changes all the time", async () => {
    await captured(SHORT);
    const told = (what: string) => lab.lines.filter((line) => line.includes(`"${what}"`)).length;
    await lab.setMode("none");
    for (let i = 0; lab.capture !== undefined || i < 10; i++) {
      await lab.setAnnotation("example.com/changes", `${i}`);
      await pause(5);
    }
    for (let i = 0; i < 20; i++) {
      await lab.setAnnotation("example.com/changes", `later ${i}`);
      await pause(5);
    }
    await lab.app.stop();
    expect([told("pod is to leave the mesh"), told("pod left the mesh")]).toEqual([1, 1]);
  });

  it("is done with at once when it is deleted meanwhile", async () => {
    await captured(LONG);
    await lab.setMode("none");
    await lab.untilRedirection(undefined);
    await lab.store.delete(POD);
    await ztunnel.saw("del uid-1");
  });

  it("is cleaned up by the next agent when this one ends meanwhile", async () => {
    await captured(LONG);
    await lab.setMode("none");
    await lab.untilRedirection(undefined);
    await lab.app.stop();
    await lab.startAgent();
    await lab.untilRules("absent");
    await expect.poll(() => lab.capture).toBeUndefined();
  });

  it("goes on leaving after ztunnel was replaced, which then has nothing to keep", async () => {
    await captured(SHORT);
    await lab.setMode("none");
    await lab.untilRedirection(undefined);
    ztunnel.close();
    const successor = lab.startZtunnel();
    await successor.saw("snapshot");
    await lab.untilRules("absent");
    await expect.poll(() => lab.capture).toBeUndefined();
  });
});
