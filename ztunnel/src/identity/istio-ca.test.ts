import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ServerCredentials, status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type IstioCertificateRequest,
  IstioCertificateResponseSchema,
  IstioCertificateService,
} from "@ambit/api/gen/istio/citadel_pb.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import { parseCsr } from "@ambit/common/tls/csr.ts";
import { type Identity, parseSpiffeId } from "@ambit/common/tls/identity.ts";
import { pemToDer } from "@ambit/common/tls/pem.ts";
import { createRoot, signingRoot, signWorkload } from "@ambit/common/tls/issuer.ts";
import { generateKeyPair, issueCertificate } from "@ambit/common/tls/x509.ts";
import type { ControlPlane } from "@ambit/common/xds/control-plane.ts";
import { GrpcServer } from "@ambit/common/xds/grpc-server.ts";
import { addService, type CallContext, RpcError } from "@ambit/common/xds/grpc-service.ts";
import { IstioCa } from "./istio-ca.ts";

const IDENTITY: Identity = { trustDomain: "td", namespace: "shop", serviceAccount: "web" };
const ID = "spiffe://td/ns/shop/sa/web";
const HOUR_MS = 3_600_000;
const signer = signingRoot(createRoot("td", Date.now()));

interface Call {
  readonly request: IstioCertificateRequest;
  readonly context: CallContext;
}

let folder: string;
let calls: Call[];
/** What the CA answers; by default a proper chain for whom the request is. */
let answer: (request: IstioCertificateRequest) => string[];
const servers: GrpcServer[] = [];
const clients: IstioCa[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ambit-ca-"));
  calls = [];
  answer = (request) => signed(request, IDENTITY);
});
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  for (const server of servers.splice(0)) server.destroy();
  rmSync(folder, { recursive: true, force: true });
});

function signed({ csr, validityDuration }: IstioCertificateRequest, identity: Identity): string[] {
  const publicKey = parseCsr(csr);
  const ttlMs = Number(validityDuration) * 1_000;
  return signWorkload(signer, { publicKey, identity, ttlMs, nowMs: Date.now() });
}

/** A CA on loopback whose own certificate is of `root`; resolves with its address. */
async function listen(root: TestRoot, port = 0): Promise<number> {
  const server = await GrpcServer.listen({
    name: "CA",
    host: "127.0.0.1",
    port,
    credentials: root.serverCredentials(),
    clock: systemClock,
    register: (grpc) =>
      addService(grpc, IstioCertificateService, {
        createCertificate: async (request, context) => {
          calls.push({ request, context });
          return create(IstioCertificateResponseSchema, { certChain: answer(request) });
        },
      }),
  });
  servers.push(server);
  return server.port;
}

/** What the control plane's own certificates come from. */
class TestRoot {
  readonly #key = generateKeyPair();
  readonly pem = issueCertificate(
    {
      publicKey: this.#key.publicKey,
      organization: "control plane",
      notBeforeMs: Date.now() - HOUR_MS,
      notAfterMs: Date.now() + HOUR_MS,
      isCa: true,
    },
    { selfKey: this.#key.privateKey },
  );

  serverCredentials(): ServerCredentials {
    const { publicKey, privateKey } = generateKeyPair();
    const leafPem = issueCertificate(
      {
        publicKey,
        notBeforeMs: Date.now() - HOUR_MS,
        notAfterMs: Date.now() + HOUR_MS,
        isCa: false,
        purposes: ["serverAuth"],
        sans: [
          { type: "ip", value: Uint8Array.of(127, 0, 0, 1) },
          { type: "dns", value: "istiod.istio-system.svc" },
        ],
      },
      { certificatePem: this.pem, privateKey: this.#key.privateKey },
    );
    const key = Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" }));
    return ServerCredentials.createSsl(null, [
      { private_key: key, cert_chain: Buffer.from(leafPem) },
    ]);
  }
}

const rootFile = () => join(folder, "root.pem");
const tokenFile = () => join(folder, "token");

function client(port: number, changes: Partial<ControlPlane> = {}, impersonate = true): IstioCa {
  const ca = new IstioCa({
    controlPlane: {
      address: `https://127.0.0.1:${port}`,
      rootCa: rootFile(),
      token: tokenFile(),
      clusterId: "cluster-1",
      ...changes,
    },
    ttlSeconds: 3_600,
    impersonate,
    clock: systemClock,
  });
  clients.push(ca);
  return ca;
}

async function setUp(changes: Partial<ControlPlane> = {}, impersonate = true) {
  const root = new TestRoot();
  writeFileSync(rootFile(), root.pem);
  writeFileSync(tokenFile(), "token-1");
  const port = await listen(root);
  return { root, port, ca: client(port, changes, impersonate) };
}

describe("a request for a certificate", () => {
  it("has a CSR for the identity, the lifetime, and whom it is for", async () => {
    const { ca } = await setUp();
    const certificate = await ca.fetch(IDENTITY);
    const [{ request }] = calls as [Call];
    expect(parseCsr(request.csr).asymmetricKeyDetails).toEqual({ namedCurve: "prime256v1" });
    expect(pemToDer(request.csr, "CERTIFICATE REQUEST")!.includes(ID)).toBe(true);
    expect(request.validityDuration).toBe(3_600n);
    expect(request.metadata).toEqual({ ImpersonatedIdentity: ID });
    expect(certificate).toMatchObject({ identity: IDENTITY, intermediatesPem: [] });
    expect(certificate.rootsPem).toHaveLength(1);
  });

  it("is for nobody else where we are the workload ourselves", async () => {
    const { ca } = await setUp({}, false);
    await ca.fetch(IDENTITY);
    expect(calls[0]!.request.metadata).toBeUndefined();
  });

  it("has a key of its own each time", async () => {
    const { ca } = await setUp();
    const [a, b] = [await ca.fetch(IDENTITY), await ca.fetch(IDENTITY)];
    expect(a.keyPem).not.toBe(b.keyPem);
  });

  it("says who asks: the token as the file has it now, the cluster, and the headers", async () => {
    const { ca } = await setUp({ headers: { "x-tenant": "blue" } });
    await ca.fetch(IDENTITY);
    writeFileSync(tokenFile(), "token-2");
    await ca.fetch(IDENTITY);
    const told = calls.map(({ context: { metadata } }) =>
      ["authorization", "clusterid", "x-tenant"].map((name) => metadata.get(name)[0]),
    );
    expect(told).toEqual([
      ["Bearer token-1", "cluster-1", "blue"],
      ["Bearer token-2", "cluster-1", "blue"],
    ]);
  });

  it("is not made with an empty token", async () => {
    const { ca } = await setUp();
    writeFileSync(tokenFile(), "");
    await expect(ca.fetch(IDENTITY)).rejects.toThrow("is empty");
    expect(calls).toEqual([]);
  });
});

describe("an answer", () => {
  const other = (account: string) => parseSpiffeId(`spiffe://td/ns/shop/sa/${account}`)!;

  it.each<[string, (request: IstioCertificateRequest) => string[], string]>([
    ["without certificates", () => [], "certificate chain of 0"],
    ["without a root", (request) => signed(request, IDENTITY).slice(0, 1), "chain of 1"],
    [
      "for somebody else",
      (request) => signed(request, other("db")),
      "is for spiffe://td/ns/shop/sa/db",
    ],
    [
      "whose root is none",
      (request) => [signed(request, IDENTITY)[0]!, "-"],
      "no root certificate",
    ],
    ["that is no certificate", () => ["x", "y"], ""],
  ])("%s is refused", async (_, make, reason) => {
    const { ca } = await setUp();
    answer = make;
    await expect(ca.fetch(IDENTITY)).rejects.toThrow(reason);
  });

  it("may have intermediates, and several roots in its last element", async () => {
    const { ca } = await setUp();
    const between = new TestCa("between");
    const roots = [signer.certificatePem, new TestCa().rootPem];
    answer = (request) => [signed(request, IDENTITY)[0]!, between.rootPem, roots.join("")];
    const certificate = await ca.fetch(IDENTITY);
    expect(certificate.intermediatesPem).toEqual([between.rootPem]);
    expect(certificate.rootsPem).toHaveLength(2);
  });

  it("of refusal is told with the CA's address and reason, and the next request is a new one", async () => {
    const { ca, port } = await setUp();
    const refuse = () => {
      throw new RpcError(status.UNAUTHENTICATED, "request authenticate failure");
    };
    answer = refuse;
    await expect(ca.fetch(IDENTITY)).rejects.toThrow(
      new RegExp(`CA at https://127.0.0.1:${port}: .*request authenticate failure`),
    );
    answer = (request) => signed(request, IDENTITY);
    await ca.fetch(IDENTITY);
  });
});

describe("the CA itself", () => {
  it("is not trusted with a certificate of another root", async () => {
    const { ca } = await setUp();
    writeFileSync(rootFile(), new TestRoot().pem);
    await expect(ca.fetch(IDENTITY)).rejects.toThrow("CA at https://127.0.0.1");
    expect(calls).toEqual([]);
  });

  it("is trusted by the root as it is now: a new one is used with the next request", async () => {
    const { ca, port, root } = await setUp();
    await ca.fetch(IDENTITY);
    const next = new TestRoot();
    servers.splice(0).forEach((server) => server.destroy());
    await listen(next, port);
    writeFileSync(rootFile(), root.pem + next.pem);
    await ca.fetch(IDENTITY);
    writeFileSync(rootFile(), next.pem);
    await ca.fetch(IDENTITY);
    expect(calls).toHaveLength(3);
  });

  it("is still asked when its root cannot be read for a moment", async () => {
    const { ca } = await setUp();
    await ca.fetch(IDENTITY);
    unlinkSync(rootFile());
    await ca.fetch(IDENTITY);
    expect(calls).toHaveLength(2);
  });

  it("may be dialed by another name than its certificate has, when that name is given", async () => {
    const { port, root } = await setUp();
    writeFileSync(rootFile(), root.pem);
    const address = `https://localhost:${port}`;
    await expect(client(port, { address }).fetch(IDENTITY)).rejects.toThrow();
    const named = client(port, { address, alternativeHostname: "istiod.istio-system.svc" });
    await named.fetch(IDENTITY);
  });

  it("may be given by its root as text", async () => {
    const { port, root } = await setUp();
    await client(port, { rootCa: root.pem }).fetch(IDENTITY);
  });
});
