import { once } from "node:events";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ALL, iptablesHarness, type RedirectionHarness } from "../testing/redirection-harness.ts";
import { connectApp } from "../testing/app-socket.ts";
import { createTestNetwork, ip, OUTSIDE, TestServer } from "../testing/test-network.ts";
import { IptablesBackend } from "./iptables-backend.ts";
import { detectIptables } from "./iptables-binaries.ts";

/** What Istio's own agent leaves in a pod, as far as it differs from ours. */
const ISTIO_LEFT = `*nat
:ISTIO_OUTPUT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
`;

const emptyAll = (kind: string) =>
  ["iptables", "ip6tables"]
    .flatMap((tool) => ["nat", "mangle", "raw"].map((table) => `${tool}-${kind} -t ${table}`))
    .map((tool) => `${tool} -F; ${tool} -X`)
    .join(";");

describe.each(["nft", "legacy"] as const)("iptables-%s", (kind) => {
  let harness: RedirectionHarness;
  beforeAll(() => {
    harness = iptablesHarness(kind);
  });
  afterEach(() => harness.reset());
  afterAll(() => harness.close());

  const verify = (changes: Partial<typeof ALL> = {}) =>
    harness.backend.verify(harness.network.pod.netns, { ...ALL, ...changes });
  const inPod = (command: string) => harness.network.sh(`ip netns exec $POD ${command}`);

  it.each([
    ["a flushed chain", `iptables-${kind} -t nat -F ISTIO_OUTPUT`],
    ["a flushed IPv6 chain", `ip6tables-${kind} -t nat -F ISTIO_OUTPUT`],
    ["a missing jump", `iptables-${kind} -t nat -D OUTPUT -j ISTIO_OUTPUT`],
    ["a rule that lets all past", `iptables-${kind} -t nat -I OUTPUT -j ACCEPT`],
    ["an added rule", `iptables-${kind} -t nat -I ISTIO_OUTPUT -j ACCEPT`],
    ["a flushed mangle table", `iptables-${kind} -t mangle -F`],
    ["a missing chain in raw", `sh -c 'ip6tables-${kind} -t raw -F; ip6tables-${kind} -t raw -X'`],
    ["everything gone but the routes", `sh -ec '${emptyAll(kind)}'`],
  ])("notices and mends %s", async (_name, damage) => {
    await harness.install();
    inPod(damage);
    expect(await verify()).toBe("drifted");
    await harness.install();
    expect(await verify()).toBe("ok");
    inPod(`iptables-${kind} -t nat -D OUTPUT -j ACCEPT || true`);
  });

  it("drops IPv6 rules that are wanted no longer", async () => {
    await harness.install();
    expect(await verify({ ipv6: false })).toBe("drifted");
    await harness.install({ ipv6: false });
    expect(await verify({ ipv6: false })).toBe("ok");
    expect(inPod(`ip6tables-${kind}-save`)).not.toContain("ISTIO");
  });

  it("takes over what Istio's agent left, without a duplicate", async () => {
    harness.network.sh(
      `echo '${ISTIO_LEFT}' | ip netns exec $POD iptables-${kind}-restore --noflush`,
    );
    expect(await verify()).toBe("drifted");
    await harness.install();
    expect(await verify()).toBe("ok");
    expect(inPod(`iptables-${kind}-save -t nat`).match(/-A OUTPUT/g)).toHaveLength(1);
  });

  it("leaves others' rules and chains alone", async () => {
    inPod(`iptables-${kind} -t nat -N MINE`);
    inPod(`iptables-${kind} -t nat -A OUTPUT -d 192.0.2.7/32 -j MINE`);
    await harness.install();
    await harness.backend.remove(harness.network.pod.netns);
    const left = inPod(`iptables-${kind}-save -t nat`);
    expect(left).toContain("-A OUTPUT -d 192.0.2.7/32 -j MINE");
    expect(left).not.toContain("ISTIO");
    inPod(`iptables-${kind} -t nat -F OUTPUT`);
    inPod(`iptables-${kind} -t nat -X MINE`);
  });

  it("works in a pod without IPv6", async () => {
    inPod("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    await harness.install();
    expect(await verify()).toBe("ok");
    await harness.reset();
    expect(await verify()).toBe("absent");
    inPod("sysctl -qw net.ipv6.conf.all.disable_ipv6=0");
    harness.network.sh(`
      ip -n $POD addr add fd77:1::2/64 dev eth0 nodad
      ip -n $POD -6 route replace default via fd77:1::1`);
  });

  it("lets not one connection past while it is installed over and over", async () => {
    await harness.install();
    await using outside = await TestServer.start(harness.network.node, ip("::"), 80);
    for (let round = 0; round < 10; round++) {
      const progress = { done: false };
      const install = async () => {
        await harness.install({ dnsCapture: round % 2 === 0 });
        progress.done = true;
      };
      const connect = async () => {
        while (!progress.done) {
          await once(connectApp(harness.network.pod, OUTSIDE.ip4, 80), "error");
        }
      };
      await Promise.all([install(), connect()]);
    }
    expect(outside.connectionCount).toBe(0);
  });

  it("holds exactly the addresses of the last call, and reads them back with their pods", async () => {
    const { backend, network } = harness;
    const both = new Map([
      [network.pod.ip4, { uid: "uid-1" }],
      [network.pod.ip6, { uid: "uid-1" }],
    ]);
    await backend.installHost(both);
    await backend.installHost(new Map([[network.pod.ip4, { uid: "uid-2" }]]));
    expect(await backend.readHost()).toEqual(new Map([[network.pod.ip4, { uid: "uid-2" }]]));
    await backend.installHost(both);
    expect(await backend.readHost()).toEqual(both);
    await backend.removeHost();
    await backend.removeHost();
    expect(await backend.readHost()).toEqual(new Map());
    expect(network.sh(`ip netns exec $NODE iptables-${kind}-save`)).not.toContain("ISTIO");
  });

  it("exempts only the given user's sockets when one is given", async () => {
    const { network } = harness;
    const options = { kind, hostNetns: network.node.netns, probeUid: 65_533 };
    const narrow = new IptablesBackend(options);
    await harness.install();
    await narrow.installHost(new Map([[network.pod.ip4, { uid: "uid-1" }]]));
    await using ztunnel = await harness.listen("PLAINTEXT");
    const client = connectApp(network.node, network.pod.ip4, 8080);
    await ztunnel.next();
    client.destroy();
  });
});

describe("choosing iptables' kind", () => {
  const network = createTestNetwork();
  afterAll(() => network.remove());
  const onNode = (command: string) => network.sh(`ip netns exec $NODE ${command}`);

  it("takes the plain name on a node without rules, else the kind that has some, nft first", async () => {
    const detect = () => detectIptables(network.node.netns);
    expect(await detect()).toBe("");
    onNode("iptables-legacy -t mangle -N KUBE-IPTABLES-HINT");
    expect(await detect()).toBe("");
    onNode("iptables-legacy -t mangle -A KUBE-IPTABLES-HINT -j RETURN");
    expect(await detect()).toBe("legacy");
    onNode("iptables-nft -t mangle -A OUTPUT -j RETURN");
    expect(await detect()).toBe("nft");
    expect(await detectIptables(network.node.netns, "legacy")).toBe("legacy");
  });
});
