// A certificate authority for whole ztunnels of any make: Istio's signing service over TLS, reached in each
// namespace on localhost. Who asks is who its token says, in namespace default.

import { writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ServerCredentials } from "@grpc/grpc-js";
import {
  IstioCertificateResponseSchema,
  IstioCertificateService,
} from "@ambit/api/gen/istio/citadel_pb.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { issueRevocationList } from "@ambit/common/testing/revocation-list-issuer.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import { certificateFromChain, type WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { createCsr, parseCsr } from "@ambit/common/tls/csr.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";
import { createRoot, type SigningCa, signingRoot, signWorkload } from "@ambit/common/tls/issuer.ts";
import { generateKeyPair, issueCertificate } from "@ambit/common/tls/x509.ts";
import { GrpcServer } from "@ambit/common/xds/grpc-server.ts";
import { addService } from "@ambit/common/xds/grpc-service.ts";
import type { Lab, Side } from "./lab.ts";

const PORT = 15_012;
const LIFETIME_MS = 3_600_000;

export class CaServer implements Disposable {
  readonly #ca: SigningCa;
  readonly #rootPath: string;
  readonly #grpc: GrpcServer;
  readonly #forwarders: readonly net.Server[];

  private constructor(ca: SigningCa, rootPath: string, grpc: GrpcServer, lab: Lab) {
    this.#ca = ca;
    this.#rootPath = rootPath;
    this.#grpc = grpc;
    this.#forwarders = (["client", "server"] as const).map((side) => forward(lab, side, grpc.port));
  }

  static async start(lab: Lab): Promise<CaServer> {
    const ca = signingRoot(createRoot("cluster.local", systemClock.nowMs()));
    const rootPath = join(lab.folder, "root.pem");
    writeFileSync(rootPath, ca.rootsPem.join(""));
    const grpc = await GrpcServer.listen({
      name: "ca",
      host: "127.0.0.1",
      port: 0,
      clock: systemClock,
      credentials: servingCredentials(ca),
      register: (server) =>
        addService(server, IstioCertificateService, {
          createCertificate: async ({ csr }, { metadata }) => {
            const [token = ""] = metadata.get("authorization");
            const account = token.toString().replace("Bearer ", "");
            const certChain = sign(ca, identityOf(account), csr);
            return create(IstioCertificateResponseSchema, { certChain });
          },
        }),
    });
    return new CaServer(ca, rootPath, grpc, lab);
  }

  /** What makes the ztunnel of a service account ask here. */
  env(serviceAccount: string): Record<string, string> {
    return {
      FAKE_CA: "false",
      CA_ADDRESS: `https://localhost:${PORT}`,
      CA_ROOT_CA: this.#rootPath,
      AUTH_TOKEN: serviceAccount,
    };
  }

  issue(serviceAccount: string): WorkloadCertificate {
    const identity = identityOf(serviceAccount);
    const { csrPem, keyPem } = createCsr(identity);
    return certificateFromChain(identity, keyPem, sign(this.#ca, identity, csrPem));
  }

  /** The list of those it took back, by serial number in hexadecimal. PEM. */
  revoke(...serialNumbers: string[]): string {
    return issueRevocationList({ serialNumbers }, this.#ca);
  }

  [Symbol.dispose](): void {
    for (const forwarder of this.#forwarders) forwarder.close();
    this.#grpc.destroy();
  }
}

function identityOf(serviceAccount: string): Identity {
  return { trustDomain: "cluster.local", namespace: "default", serviceAccount };
}

function sign(ca: SigningCa, identity: Identity, csrPem: string): string[] {
  const publicKey = parseCsr(csrPem);
  return signWorkload(ca, { publicKey, identity, ttlMs: LIFETIME_MS, nowMs: systemClock.nowMs() });
}

function servingCredentials(ca: SigningCa): ServerCredentials {
  const { publicKey, privateKey } = generateKeyPair();
  const leaf = issueCertificate(
    {
      publicKey,
      notBeforeMs: systemClock.nowMs() - LIFETIME_MS,
      notAfterMs: systemClock.nowMs() + LIFETIME_MS,
      isCa: false,
      purposes: ["serverAuth"],
      sans: [{ type: "dns", value: "localhost" }],
    },
    ca,
  );
  const key = privateKey.export({ type: "pkcs8", format: "pem" });
  const pair = { cert_chain: Buffer.from(leaf), private_key: Buffer.from(key) };
  return ServerCredentials.createSsl(null, [pair]);
}

/** The namespaces have no way to the test's own: what arrives in one is carried over. */
function forward(lab: Lab, side: Side, port: number): net.Server {
  const forwarder = net.createServer((inside) => {
    const outside = net.connect(port, "127.0.0.1");
    for (const socket of [inside, outside]) socket.on("error", () => undefined);
    inside.pipe(outside).pipe(inside);
  });
  const address = { ip: "127.0.0.1" as Ip, port: PORT };
  return forwarder.listen({ fd: listenTcp(lab.fd(side), { address }) });
}
