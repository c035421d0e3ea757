import { Metadata, status } from "@grpc/grpc-js";
import { create } from "@bufbuild/protobuf";
import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import { IstioCertificateRequestSchema } from "@ambit/api/gen/istio/citadel_pb.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { createCsr } from "@ambit/common/tls/csr.ts";
import { createRoot, signingRoot } from "@ambit/common/tls/issuer.ts";
import { CertificateAuthority } from "./authority.ts";
import { certificateService } from "./certificate-service.ts";
import { NodeAuthorizer } from "./node-authorizer.ts";
import type { Caller } from "./token-authenticator.ts";

const callers: Readonly<Record<string, Caller>> = {
  app: { namespace: "shop", serviceAccount: "web" },
  ztunnel: {
    namespace: "istio-system",
    serviceAccount: "ztunnel",
    podName: "ztunnel-1",
    podUid: "z",
  },
};
const pod = {
  uid: "z",
  namespace: "istio-system",
  serviceAccount: "ztunnel",
  node: "n",
  failed: false,
};
const neighbour = { ...pod, uid: "w", namespace: "shop", serviceAccount: "web" };
const csr = createCsr({ trustDomain: "x", namespace: "x", serviceAccount: "x" }).csrPem;

function setUp() {
  const clock = new FakeClock();
  const counts = { requests: 0, authenticationFailures: 0, csrErrors: 0, issued: 0 };
  const { log, lines } = memoryLog();
  const service = certificateService({
    authority: new CertificateAuthority(signingRoot(createRoot("td", clock.nowMs())), clock),
    authenticator: {
      authenticate: (token) =>
        callers[token] === undefined
          ? Promise.reject(new Error("unknown token"))
          : Promise.resolve(callers[token]),
    },
    nodes: new NodeAuthorizer(["istio-system/ztunnel"], {
      pod: () => pod,
      podsOnNode: () => [pod, neighbour],
    }),
    trustDomain: () => "td",
    log: log.scope("ca"),
    observer: {
      onRequest: () => counts.requests++,
      onAuthenticationFailure: () => counts.authenticationFailures++,
      onCsrError: () => counts.csrErrors++,
      onIssued: () => counts.issued++,
    },
  });
  const ask = async (authorization: string | undefined, fields: object = {}) => {
    const metadata = new Metadata();
    if (authorization !== undefined) metadata.set("authorization", authorization);
    const request = create(IstioCertificateRequestSchema, { csr, ...fields });
    const answer = await service.createCertificate(request, { metadata, peer: "10.0.0.1:1" });
    return new X509Certificate(answer.certChain[0]!).subjectAltName;
  };
  return { ask, counts, lines };
}

const actingFor = (identity: string) => ({ metadata: { ImpersonatedIdentity: identity } });

describe("the certificate service", () => {
  it("signs for the caller itself, whatever the request says", async () => {
    const { ask, counts } = setUp();
    expect(await ask("Bearer app")).toBe("URI:spiffe://td/ns/shop/sa/web");
    expect(counts).toEqual({ requests: 1, authenticationFailures: 0, csrErrors: 0, issued: 1 });
  });

  it("signs for a neighbour of a node proxy", async () => {
    const { ask } = setUp();
    const wanted = "spiffe://td/ns/shop/sa/web";
    expect(await ask("Bearer ztunnel", actingFor(wanted))).toBe(`URI:${wanted}`);
  });

  it.each<[string, string | undefined, object]>([
    ["no token", undefined, {}],
    ["another scheme", "Basic app", {}],
    ["an unknown token", "Bearer evil", {}],
    ["an app that acts for another", "Bearer app", actingFor("spiffe://td/ns/shop/sa/web")],
    ["a proxy for who is not on its node", "Bearer ztunnel", actingFor("spiffe://td/ns/a/sa/b")],
    ["a proxy for what is no identity", "Bearer ztunnel", actingFor("web")],
  ])("refuses %s without a reason; the log has it", async (_, authorization, fields) => {
    const { ask, counts, lines } = setUp();
    await expect(ask(authorization, fields)).rejects.toMatchObject({
      code: status.UNAUTHENTICATED,
      message: expect.stringMatching(/^request (impersonation )?authenticat\w+ failure$/),
    });
    expect(counts).toMatchObject({ authenticationFailures: 1, issued: 0 });
    expect(lines.join("\n")).toMatch(/not authenticated|impersonation refused/);
  });

  it.each<[string, object, RegExp]>([
    ["a request that is none", { csr: "hello" }, /CSR: no CERTIFICATE REQUEST/],
    ["too long a life", { validityDuration: 90n * 86_400n + 1n }, /greater than the maximum/],
  ])("says what is wrong with %s", async (_, fields, reason) => {
    const { ask, counts } = setUp();
    await expect(ask("Bearer app", fields)).rejects.toMatchObject({
      code: status.INVALID_ARGUMENT,
      message: expect.stringMatching(reason),
    });
    expect(counts).toMatchObject({ csrErrors: 1, issued: 0 });
  });
});
