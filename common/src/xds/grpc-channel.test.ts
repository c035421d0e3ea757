import { ServerCredentials } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { ipToBytes, parseIp } from "../net/ip.ts";
import { systemClock } from "../process/clock.ts";
import { TestCa } from "../testing/test-ca.ts";
import type { SubjectAltName } from "../tls/x509.ts";
import { connect, createClient, parseAddress } from "./grpc-channel.ts";
import { GrpcServer } from "./grpc-server.ts";

const CONNECT_MS = 5_000;

describe("addresses", () => {
  it.each([
    ["https://istiod.istio-system.svc:15012", true, "istiod.istio-system.svc:15012"],
    ["istiod:15012", true, "istiod:15012"],
    ["http://127.0.0.1:15010", false, "127.0.0.1:15010"],
    ["https://[fd00::1]:15012", true, "[fd00::1]:15012"],
    ["https://istiod", true, "istiod:443"],
  ])("%s", (address, secure, authority) => {
    expect(parseAddress(address)).toMatchObject({ secure, authority });
  });

  it.each(["", "unix:///tmp/x", "https://", "a b"])("refuses %j", (address) => {
    expect(() => parseAddress(address)).toThrow("is not an address like https://host:port");
  });
});

async function withServer(
  sans: readonly SubjectAltName[],
  use: (port: number, rootPem: string) => Promise<void>,
): Promise<void> {
  const ca = new TestCa();
  const identity = { trustDomain: "cluster.local", namespace: "ns", serviceAccount: "istiod" };
  const { leafPem, keyPem } = ca.issue(identity, { sans: [...sans] });
  const server = await GrpcServer.listen({
    name: "test",
    host: "127.0.0.1",
    port: 0,
    credentials: ServerCredentials.createSsl(null, [
      { cert_chain: Buffer.from(leafPem), private_key: Buffer.from(keyPem) },
    ]),
    register: () => undefined,
    clock: systemClock,
  });
  try {
    await use(server.port, ca.rootPem);
  } finally {
    server.destroy();
  }
}

async function tryConnect(target: Parameters<typeof createClient>[0]): Promise<boolean> {
  const client = createClient(target);
  try {
    await connect(client, CONNECT_MS);
    return true;
  } catch {
    return false;
  } finally {
    client.close();
  }
}

const LOCALHOST: SubjectAltName = { type: "dns", value: "localhost" };
const LOOPBACK: SubjectAltName = { type: "ip", value: ipToBytes(parseIp("127.0.0.1")!) };
const ISTIOD: SubjectAltName = { type: "dns", value: "istiod.istio-system.svc" };

describe("a TLS channel", () => {
  it.each([
    ["a server of the dialed address", "127.0.0.1", [LOOPBACK], undefined, true],
    ["a server of the dialed name", "localhost", [LOCALHOST], undefined, true],
    ["a server of another name", "127.0.0.1", [LOCALHOST], undefined, false],
    [
      "a server named as the handshake was",
      "127.0.0.1",
      [{ ...ISTIOD, value: "istiod" }],
      undefined,
      false,
    ],
    ["a server of the alternative name", "127.0.0.1", [ISTIOD], "istiod.istio-system.svc", true],
  ] as const)("meets %s", async (_what, host, sans, alternativeHostname, accepted) => {
    await withServer(sans, async (port, rootPem) => {
      const address = `https://${host}:${port}`;
      expect(await tryConnect({ address, rootPem, alternativeHostname })).toBe(accepted);
    });
  });

  it("refuses a server of another root", async () => {
    await withServer([LOOPBACK], async (port) => {
      const { rootPem } = new TestCa();
      expect(await tryConnect({ address: `https://127.0.0.1:${port}`, rootPem })).toBe(false);
    });
  });
});
