// Attacks on the direct path: a pod that has NET_ADMIN and NET_RAW in its own namespace, and knows every
// address and port, tries to reach an application that it was not allowed, or no longer.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as linux from "@ambit/common/sys/constants.ts";
import { call, closeFd } from "@ambit/common/sys/libc.ts";
import { cookieOfNetns } from "@ambit/common/sys/netns-cookie.ts";
import { destroyConnections, tcpConnections } from "@ambit/common/sys/sock-diag.ts";
import {
  bindTo,
  connectFd,
  disconnectFd,
  openAppSocket,
  setOption,
  wrap,
} from "../testing/app-socket.ts";
import { APP_PORT, DirectLab } from "../testing/direct-lab.ts";
import { ALL, type EbpfHarness, ebpfHarness } from "../testing/redirection-harness.ts";
import { ip, talk, TestServer } from "../testing/test-network.ts";
import { CONNECTION_MARK } from "./wire.ts";

const TCP_FASTOPEN_CONNECT = 30;
/** A client's Fast Open, which needs no cookie of an earlier connection. */
const FASTOPEN_NO_COOKIE = 5;
/** Another one in each test: half-open connections of the one before may still be there. */
let clientPort = 40_404;
const VIP = { ip: ip("10.96.7.7"), port: 80 };

let harness: EbpfHarness;
let lab: DirectLab;
beforeAll(() => {
  harness = ebpfHarness();
});
beforeEach(async () => {
  clientPort++;
  lab = await DirectLab.start(harness);
});
afterEach(async () => {
  harness.network.sh("ip netns exec $POD nft delete table inet attack 2>/dev/null || true");
  await lab[Symbol.asyncDispose]();
});
afterAll(() => harness.close());

const direct = () => harness.node.steering.direct;
/** What the attacker does to packets of its own namespace. */
const attack = (type: "filter" | "nat", rule: string) =>
  harness.network.sh(`ip netns exec $POD nft '
    add table inet attack
    add chain inet attack out { type ${type} hook output priority -150; }
    add rule inet attack out ${rule}'`);
const setMark = (fd: number, mark: number) => setOption(fd, linux.SOL_SOCKET, linux.SO_MARK, mark);

/** connect() that sends nothing until the first byte is written: decisions before and after it may differ. */
function deferredCall(): number {
  harness.network.sh(`ip netns exec $POD sysctl -qw net.ipv4.tcp_fastopen=${FASTOPEN_NO_COOKIE}`);
  const fd = openAppSocket(lab.caller, lab.at().ip);
  setOption(fd, linux.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
  connectFd(fd, lab.at().ip, APP_PORT);
  return fd;
}

const sendNow = (fd: number) => void call("write", "", fd, Buffer.from("hello"), 5);

describe("without a verdict", () => {
  it("a pod without its routing rule reaches ztunnel, not the application", async () => {
    harness.network.sh("ip -n $POD rule del fwmark 0x111/0xfff lookup 100");
    const client = lab.call(lab.at());
    await talk(client, await lab.plaintext.next());
    expect(lab.app.connectionCount).toBe(0);
    client.destroy();
  });

  it("a socket that loses its mark before the SYN reaches ztunnel, not the application", async () => {
    const fd = deferredCall();
    setMark(fd, 0);
    sendNow(fd);
    await lab.plaintext.next();
    expect(lab.app.connectionCount).toBe(0);
    expect(direct().flows()).toEqual([]);
    closeFd(fd);
  });

  it("a service's verdict opens no way to the pod's own address", async () => {
    lab.allow(VIP, lab.at());
    const fd = openAppSocket(lab.caller, VIP.ip);
    connectFd(fd, VIP.ip, VIP.port);
    await lab.app.next();
    disconnectFd(fd);
    connectFd(fd, lab.at().ip, APP_PORT);
    const client = wrap(fd);
    await talk(client, await lab.outbound.next());
    expect(lab.app.connectionCount).toBe(1);
    client.destroy();
  });

  it("the mark of captured sockets is no way around either", async () => {
    const fd = openAppSocket(lab.caller, lab.at().ip);
    setMark(fd, CONNECTION_MARK);
    connectFd(fd, lab.at().ip, APP_PORT);
    const client = wrap(fd);
    await talk(client, await lab.outbound.next());
    client.destroy();
  });
});

describe("with a verdict", () => {
  it("an allowed port, rewritten on the way out, does not become another", async () => {
    const hidden = APP_PORT + 1;
    await using secret = await TestServer.start(harness.network.other, ip("::"), hidden);
    lab.allow(lab.at());
    attack("nat", `tcp dport ${APP_PORT} dnat ip to ${lab.at().ip}:${hidden}`);
    const client = lab.call(lab.at());
    await lab.plaintext.next();
    expect(secret.connectionCount).toBe(0);
    client.destroy();
  });

  it("another pod's address as the source makes the call nobody's", async () => {
    lab.allow(lab.at());
    const before = lab.counted("DIRECT_SPOOFED");
    const fd = openAppSocket(lab.caller, lab.at().ip);
    setOption(fd, linux.SOL_IP, linux.IP_TRANSPARENT, 1);
    bindTo(fd, ip("10.77.1.99"), clientPort);
    connectFd(fd, lab.at().ip, APP_PORT);
    await expect.poll(() => lab.counted("DIRECT_SPOOFED")).toBe(before + 1);
    expect(direct().flows()).toEqual([]);
    expect(lab.app.connectionCount).toBe(0);
    closeFd(fd);
  });

  it("a used tuple lets nobody else in, though the client still has its socket", async () => {
    lab.allow(lab.at());
    attack("filter", "tcp flags & rst == rst drop");
    const prepare = (fd: number) => bindTo(fd, lab.caller.ip4, clientPort);
    const client = lab.call(lab.at(), { prepare });
    const served = await lab.app.next();
    await talk(client, served);
    served.resetAndDestroy();
    await expect.poll(() => direct().flows()).toEqual([]);
    const passed = lab.counted("DIRECT_PASSED");
    const plain = lab.counted("TO_PLAINTEXT");
    const thief = openAppSocket(harness.network.node, lab.at().ip);
    setOption(thief, linux.SOL_IP, linux.IP_TRANSPARENT, 1);
    bindTo(thief, lab.caller.ip4, clientPort);
    connectFd(thief, lab.at().ip, APP_PORT);
    await expect.poll(() => lab.counted("TO_PLAINTEXT")).toBeGreaterThan(plain);
    expect(lab.counted("DIRECT_PASSED")).toBe(passed);
    expect(lab.app.connectionCount).toBe(1);
    closeFd(thief);
    client.destroy();
  });
});

describe("a verdict that was revoked", () => {
  it("does not let a SYN through that was allowed before and sent after", async () => {
    lab.allow(lab.at());
    const fd = deferredCall();
    direct().revoke(lab.slot);
    const before = lab.counted("DIRECT_STALE");
    sendNow(fd);
    await lab.plaintext.next();
    expect(lab.counted("DIRECT_STALE")).toBe(before + 1);
    expect(lab.app.connectionCount).toBe(0);
    closeFd(fd);
  });

  it("is no use to a caller that has left the mesh before it sends", async () => {
    lab.allow(lab.at());
    const fd = deferredCall();
    harness.node.steering.release(lab.source.netns);
    const before = lab.counted("DIRECT_STARTED");
    sendNow(fd);
    await lab.plaintext.next();
    expect(lab.counted("DIRECT_STARTED")).toBe(before);
    expect(lab.app.connectionCount).toBe(0);
    closeFd(fd);
  });

  it.each(["switched off", "released"])("is no use to a caller that is %s", async (how) => {
    lab.allow(lab.at());
    const released = { inbound: false, dns: false, released: true } as const;
    const before = lab.counted("DIRECT_CHOSEN");
    const state = how === "released" ? released : undefined;
    harness.node.steering.setSlot(lab.source.slot, state);
    const client = lab.call(lab.at());
    await talk(client, await lab.plaintext.next());
    expect(lab.counted("DIRECT_CHOSEN")).toBe(before);
    client.destroy();
  });

  it("is not revived by whoever gets the destination's slot next", async () => {
    lab.allow(lab.at());
    const { other } = harness.network;
    await harness.backend.remove(other.netns);
    await harness.backend.install(other.netns, ALL);
    expect(harness.node.steering.slotOf(cookieOfNetns(other.netns.fd))).toBe(lab.slot);
    const client = lab.call(lab.at());
    await talk(client, await lab.outbound.next());
    client.destroy();
  });
});

describe("a pod's capabilities", () => {
  /** Tries to get hold of the first maps there are, by id, as a pod's root would. */
  const attempt = `
    import { bpf, newAttr } from "@ambit/common/sys/bpf-call.ts";
    const BPF_MAP_GET_NEXT_ID = 12, BPF_MAP_GET_FD_BY_ID = 14;
    const codes = [BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID].map((command) => {
      try {
        const attr = newAttr();
        attr.writeUInt32LE(command === BPF_MAP_GET_FD_BY_ID ? 1 : 0, 0);
        bpf(command, "map", attr);
        return "opened";
      } catch (error) {
        return error.code;
      }
    });
    console.log(codes.join(" "));`;

  it("NET_ADMIN and NET_RAW open no map in which it could write a verdict", () => {
    const caps = "-all,+net_admin,+net_raw";
    const rights = ["--bounding-set", caps, "--inh-caps", caps, "--no-new-privs"];
    const program = [process.execPath, "--input-type=module", "-e", attempt];
    const output = execFileSync("setpriv", [...rights, ...program], {
      encoding: "utf8",
      cwd: import.meta.dirname,
    });
    expect(output.trim()).toBe("EPERM EPERM");
  });
});

describe("ending what was allowed", () => {
  const served = async () => {
    const prepare = (fd: number) => {
      setOption(fd, linux.SOL_SOCKET, linux.SO_REUSEADDR, 1);
      bindTo(fd, lab.caller.ip4, clientPort);
    };
    const client = lab.call(lab.at(), { prepare });
    const far = await lab.app.next();
    await talk(client, far);
    return { client, far, prepare };
  };
  const atDestination = () =>
    tcpConnections(harness.network.other.netns.fd).filter(
      ({ local, remote }) => local.port === APP_PORT && remote.port === clientPort,
    );

  it("does not need the client: it may swallow every reset", async () => {
    lab.allow(lab.at());
    attack("filter", "tcp flags & (rst | fin) != 0 drop");
    const { client, far } = await served();
    client.resetAndDestroy();
    expect(atDestination()).toHaveLength(1);
    expect(destroyConnections(harness.network.other.netns.fd, atDestination())).toBe(1);
    const [error] = (await once(far, "error")) as [Error];
    expect(error).toMatchObject({ code: "ECONNABORTED" });
    expect(atDestination()).toEqual([]);
    await expect.poll(() => direct().flows()).toEqual([]);
  });

  it("still sees a connection whose client pretended to begin and give up another", async () => {
    lab.allow(lab.at());
    attack("filter", "tcp flags & (rst | fin) != 0 drop");
    const { client, prepare } = await served();
    client.resetAndDestroy();
    const pretender = openAppSocket(lab.caller, lab.at().ip);
    prepare(pretender);
    connectFd(pretender, lab.at().ip, APP_PORT);
    closeFd(pretender);
    expect(direct().flows()).toMatchObject([{ source: { port: clientPort } }]);
    expect(atDestination()).toHaveLength(1);
    destroyConnections(harness.network.other.netns.fd, atDestination());
    await expect.poll(() => direct().flows()).toEqual([]);
  });
});
