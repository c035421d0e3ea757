import { once } from "node:events";
import { connect } from "node:tls";
import { expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { createRoot, signingRoot } from "@ambit/common/tls/issuer.ts";
import { GrpcServer } from "@ambit/common/xds/grpc-server.ts";
import { CertificateAuthority } from "./ca/authority.ts";
import { REISSUE_INTERVAL_MS, ServingRotation } from "./serving-rotation.ts";

/** The serial number of the certificate a new connection is shown. */
async function servedSerial(port: number, ca: string): Promise<string> {
  const socket = connect({ port, host: "127.0.0.1", ca, ALPNProtocols: ["h2"] });
  await once(socket, "secureConnect");
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

it("new connections get the new certificate, and the new CA's, on the same port", async () => {
  // The handshake looks at the real time: both certificates must be valid now.
  const clock = new FakeClock(Date.now() - REISSUE_INTERVAL_MS);
  const root = signingRoot(createRoot("cluster.local", clock.nowMs()));
  const authority = new CertificateAuthority(root, clock);
  const rotation = new ServingRotation(authority, ["10.1.2.3"], clock);
  const server = await GrpcServer.listen({
    name: "test",
    host: "127.0.0.1",
    port: 0,
    credentials: rotation.credentials,
    register: () => undefined,
    clock: systemClock,
  });
  const first = await servedSerial(server.port, authority.rootBundlePem);
  expect(await servedSerial(server.port, authority.rootBundlePem)).toBe(first);
  await clock.advance(REISSUE_INTERVAL_MS);
  expect(await servedSerial(server.port, authority.rootBundlePem)).not.toBe(first);
  authority.replace(signingRoot(createRoot("cluster.local", clock.nowMs())));
  await servedSerial(server.port, authority.rootBundlePem); // it trusts the new root only
  rotation.close();
  expect(clock.pendingTimers).toBe(0);
  server.destroy();
});
