import { execFileSync } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseIp } from "../net/ip.ts";
import type { SocketAddress } from "../net/socket-address.ts";
import { type NetnsHandle, openNetns } from "./netns.ts";
import {
  canDestroyConnections,
  destroyConnections,
  tcpConnections,
  TcpState,
} from "./sock-diag.ts";
import { connectTcp, listenTcp } from "./sockets.ts";

const NAME = `ambit-test-${process.pid}-diag`;
let netns: NetnsHandle;
let server: net.Server;
let at: SocketAddress;

beforeAll(async () => {
  execFileSync("sh", ["-ec", `ip netns add ${NAME}; ip -n ${NAME} link set lo up`]);
  netns = openNetns(`/run/netns/${NAME}`);
  const fd = listenTcp(netns.fd, { address: { ip: parseIp("::")!, port: 0 } });
  server = net.createServer({ allowHalfOpen: true }).listen({ fd });
  await once(server, "listening");
  at = { ip: parseIp("127.0.0.1")!, port: (server.address() as net.AddressInfo).port };
});
afterAll(() => {
  server.close();
  netns.close();
  execFileSync("ip", ["netns", "del", NAME]);
});

/** Both ends of a new connection. */
async function connection(ip = "127.0.0.1"): Promise<[net.Socket, net.Socket]> {
  const accepted = once(server, "connection");
  const { socket } = await connectTcp(netns.fd, {
    destination: { ip: parseIp(ip)!, port: at.port },
    timeoutMs: 3_000,
  });
  const [served] = (await accepted) as [net.Socket];
  for (const end of [socket, served]) end.on("error", () => {});
  return [socket, served];
}

const end = (...sockets: net.Socket[]) => {
  for (const socket of sockets) socket.resetAndDestroy();
};

describe("the connections of a namespace", () => {
  it.each(["127.0.0.1", "::1"])("are both ends of each, with what they carried: %s", async (ip) => {
    const [client, served] = await connection(ip);
    served.resume();
    client.write("12345");
    await once(served, "data");
    const found = tcpConnections(netns.fd).filter(({ remote }) => remote.port === at.port);
    expect(found).toMatchObject([
      { remote: { ip, port: at.port }, local: { ip, port: client.localPort } },
    ]);
    const far = tcpConnections(netns.fd).find(({ local }) => local.port === at.port);
    expect(far).toMatchObject({ bytesReceived: 5, bytesAcked: 0, state: TcpState.ESTABLISHED });
    end(client, served);
  });

  it("are listed in full when they do not fit one answer", async () => {
    const all = [];
    for (let i = 0; i < 300; i++) all.push(await connection());
    expect(tcpConnections(netns.fd)).toHaveLength(600);
    end(...all.flat());
  });

  it("are none of another namespace", async () => {
    const [client, served] = await connection();
    const own = tcpConnections(undefined).filter(({ remote }) => remote.port === at.port);
    expect(own).toEqual([]);
    end(client, served);
  });
});

describe("ending connections", () => {
  it("ends those that are named, with an error at both ends, and no others", async () => {
    const [client, served] = await connection();
    const [other, otherServed] = await connection();
    const doomed = tcpConnections(netns.fd).filter(
      ({ local, remote }) => local.port === at.port && remote.port === client.localPort,
    );
    const errors = [once(client, "error"), once(served, "error")];
    for (const socket of [client, served]) socket.resume();
    expect(destroyConnections(netns.fd, doomed)).toBe(1);
    const codes = (await Promise.all(errors)).map(([error]) => (error as { code: string }).code);
    expect(codes).toEqual(["ECONNRESET", "ECONNABORTED"]);
    otherServed.resume();
    other.write("still here");
    await once(otherServed, "data");
    end(other, otherServed);
  });

  it("does not take another connection with the same ports for the one that was named", async () => {
    const [client, served] = await connection();
    const named = tcpConnections(netns.fd).find(({ local }) => local.port === at.port);
    end(client, served);
    expect(destroyConnections(netns.fd, [named!])).toBe(0);
  });

  it("is possible on this kernel", () => {
    expect(canDestroyConnections()).toBe(true);
  });
});
