import { mkdtempSync, rmSync, watch, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, fromBinary } from "@bufbuild/protobuf";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, describe, expect, it } from "vitest";
import {
  IstioCertificateRequestSchema,
  IstioCertificateService,
} from "@ambit/api/gen/istio/citadel_pb.ts";
import { AddressSchema } from "@ambit/api/gen/istio/workload_pb.ts";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { RawStream, TestClient } from "@ambit/common/testing/xds-harness.ts";
import { certificateFromChain } from "@ambit/common/tls/certificate.ts";
import { createCsr } from "@ambit/common/tls/csr.ts";
import { createClient } from "@ambit/common/xds/grpc-channel.ts";
import { callUnary } from "@ambit/common/xds/grpc-service.ts";
import { TYPE_ADDRESS, TYPE_AUTHORIZATION } from "@ambit/common/xds/resource-type.ts";
import { type App, buildApp } from "./app.ts";
import { type Config, parseConfig } from "./config.ts";

const ISSUER = "https://issuer.test";
const POD_UID = "Kubernetes//Pod/shop/reviews-1";

const pod = (name: string, more = "") => `
apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: shop
  uid: uid-${name}
  labels: {app: reviews}
  annotations: {ambient.istio.io/redirection: enabled}
spec:
  serviceAccountName: reviews
  nodeName: node-1
  containers: [{name: app, command: [sleep]}]
status:
  phase: Running
  podIP: 10.244.1.5
  podIPs: [{ip: 10.244.1.5}]
  conditions: [{type: Ready, status: "True"}]
${more}`;

const SERVICE = `
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}]
`;

const POLICY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-web, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]
`;

const SERVICE_ENTRY = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec: {hosts: [db.test], resolution: DNS, ports: [{number: 5432, name: tcp}]}
`;

const ZTUNNEL = `
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-a, namespace: istio-system, uid: uid-ztunnel}
spec: {serviceAccountName: ztunnel, nodeName: node-1, hostNetwork: true, containers: [{name: ztunnel}]}
status: {phase: Running, podIP: 172.30.0.11}
`;

class Fixture {
  readonly folder = mkdtempSync(join(tmpdir(), "istiod-lite-"));
  readonly log = memoryLog("info");
  app: App | undefined;

  write(file: string, ...documents: string[]): void {
    writeFileSync(join(this.folder, file), documents.join("\n---\n"));
  }

  remove(file: string): void {
    rmSync(join(this.folder, file));
  }

  config(env: Record<string, string> = {}): Config {
    return parseConfig({
      MANIFESTS: this.folder,
      BIND_ADDRESS: "127.0.0.1",
      XDS_PORT: "0",
      XDS_TLS_PORT: "0",
      HTTP_PORT: "0",
      METRICS_PORT: "0",
      PILOT_DEBOUNCE_AFTER: "1ms",
      ...env,
    });
  }

  async start(env: Record<string, string> = {}): Promise<App> {
    this.app = await buildApp(this.config(env), { log: this.log.log });
    return this.app;
  }

  url(path: string): string {
    return `http://127.0.0.1:${this.app!.ports.http}${path}`;
  }

  get plaintext(): string {
    return `http://127.0.0.1:${this.app!.ports.plaintext}`;
  }

  get secure(): string {
    return `https://127.0.0.1:${this.app!.ports.secure}`;
  }

  async close(): Promise<void> {
    this.app?.stop();
    await this.app?.stopped;
    rmSync(this.folder, { recursive: true });
  }
}

let fixture = new Fixture();

afterEach(async () => {
  await fixture.close();
  fixture = new Fixture();
});

/** Local tokens: keys in a file outside the manifests, and a token for a pod. */
async function tokens(folder: string) {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const jwk = { ...(await exportJWK(publicKey)), kid: "k", alg: "ES256" };
  const file = join(folder, "keys.jwks");
  writeFileSync(file, JSON.stringify({ keys: [jwk] }));
  const token = (namespace: string, account: string, name: string, uid: string) =>
    new SignJWT({ "kubernetes.io": { pod: { name, uid } } })
      .setProtectedHeader({ alg: "ES256", kid: "k" })
      .setSubject(`system:serviceaccount:${namespace}:${account}`)
      .setIssuer(ISSUER)
      .setAudience("istio-ca")
      .setExpirationTime("1h")
      .sign(privateKey);
  return { env: { JWKS_FILE: file, TOKEN_ISSUER: ISSUER }, token };
}

describe("istiod-lite", () => {
  it("serves the manifests as workloads, services and policies", async () => {
    fixture.write("mesh.yaml", pod("reviews-1"), SERVICE, POLICY);
    await fixture.start();
    using client = new TestClient(fixture.plaintext);
    await client.untilSynced();
    expect([...client.of(TYPE_ADDRESS).keys()].sort()).toEqual([
      POD_UID,
      "shop/reviews.shop.svc.cluster.local",
    ]);
    expect([...client.of(TYPE_AUTHORIZATION).keys()]).toEqual(["shop/only-web"]);
    const update = client.updates.find(({ typeUrl }) => typeUrl === TYPE_ADDRESS);
    const value = update?.upserts.find(({ name }) => name === POD_UID)?.value;
    expect(fromBinary(AddressSchema, value!).type.value).toMatchObject({
      name: "reviews-1",
      serviceAccount: "reviews",
      authorizationPolicies: ["shop/only-web"],
      services: { "shop/reviews.shop.svc.cluster.local": {} },
    });
  });

  it("pushes only what an edit changed, and what a deleted file took away", async () => {
    fixture.write("mesh.yaml", pod("reviews-1"), SERVICE);
    fixture.write("more.yaml", pod("reviews-2"));
    await fixture.start();
    using client = new TestClient(fixture.plaintext);
    await client.untilSynced();
    const seen = client.updates.length;
    fixture.write("more.yaml", pod("reviews-2").replaceAll("10.244.1.5", "10.244.1.6"));
    await client.signal.until(() => client.updates.length > seen);
    expect(client.updates.at(-1)).toMatchObject({
      typeUrl: TYPE_ADDRESS,
      upserts: [{ name: "Kubernetes//Pod/shop/reviews-2" }],
      removed: [],
    });
    fixture.remove("more.yaml");
    await client.signal.until(() => client.of(TYPE_ADDRESS).size === 2);
    expect(client.updates.at(-1)).toMatchObject({
      upserts: [],
      removed: ["Kubernetes//Pod/shop/reviews-2"],
    });
  });

  it("keeps serving the last good version of a file that breaks, and says what is wrong", async () => {
    fixture.write("mesh.yaml", pod("reviews-1"));
    await fixture.start();
    using client = new TestClient(fixture.plaintext);
    await client.untilSynced();
    fixture.write("mesh.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: 7}\n");
    fixture.write("other.yaml", SERVICE);
    await client.signal.until(() => client.of(TYPE_ADDRESS).size === 2);
    expect(client.of(TYPE_ADDRESS).has(POD_UID)).toBe(true);
    const problems = (await (await fetch(fixture.url("/debug/problemsz"))).json()) as unknown[];
    expect(problems).toContainEqual(
      expect.objectContaining({ file: join(fixture.folder, "mesh.yaml") }),
    );
    expect(fixture.log.lines.join()).toContain("manifest problem");
  });

  it("follows its mesh configuration, in what it pushes and in what it signs", async () => {
    const config = (mesh: string) => `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: '${mesh}'}`;
    fixture.write("config.yaml", config("trustDomain: old.test"));
    fixture.write("mesh.yaml", pod("reviews-1"));
    const { env, token } = await tokens(fixture.folder);
    const app = await fixture.start(env);
    using client = new TestClient(fixture.plaintext);
    await client.untilSynced();
    const told = () => {
      const [last] = client.updates.filter(({ typeUrl }) => typeUrl === TYPE_ADDRESS).slice(-1);
      const { value } = fromBinary(AddressSchema, last!.upserts[0]!.value).type;
      return (value as { trustDomain: string }).trustDomain;
    };
    expect(told()).toBe("old.test");
    fixture.write("config.yaml", config("trustDomain: {"));
    fixture.write("config.yaml", config("trustDomain: new.test"));
    await client.signal.until(() => told() === "new.test");
    expect(await (await fetch(fixture.url("/debug/mesh"))).json()).toMatchObject({
      trustDomain: "new.test",
    });
    const issuer = createClient({ address: fixture.secure, rootPem: app.rootBundlePem() });
    const authorization = `Bearer ${await token("shop", "reviews", "reviews-1", "uid-reviews-1")}`;
    const identity = { trustDomain: "new.test", namespace: "shop", serviceAccount: "reviews" };
    const { csrPem, keyPem } = createCsr(identity);
    const { certChain } = await callUnary(
      issuer,
      IstioCertificateService.method.createCertificate,
      create(IstioCertificateRequestSchema, { csr: csrPem }),
      { metadata: { authorization }, deadlineMs: Date.now() + 10_000 },
    );
    expect(certificateFromChain(identity, keyPem, certChain).identity).toEqual(identity);
    issuer.close();
  });

  it("shows who is in sync, what is served, and its metrics", async () => {
    fixture.write("mesh.yaml", pod("reviews-1"), POLICY);
    const app = await fixture.start();
    using client = new TestClient(fixture.plaintext);
    await client.untilSynced();
    expect(await (await fetch(fixture.url("/debug/syncz"))).json()).toMatchObject([
      {
        proxy: "ztunnel-a.istio-system",
        node: "node-a",
        types: { [TYPE_ADDRESS]: { resources: 1 } },
      },
    ]);
    const query = new URLSearchParams({ type: TYPE_ADDRESS });
    expect(
      await (await fetch(fixture.url(`/debug/resourcesz?${query.toString()}`))).json(),
    ).toMatchObject([
      { name: POD_UID, resource: { workload: { namespace: "shop", tunnelProtocol: "HBONE" } } },
    ]);
    const metrics = await (await fetch(`http://127.0.0.1:${app.ports.metrics}/metrics`)).text();
    expect(metrics).toContain('pilot_xds{version="unknown"} 1\n');
    expect(metrics).toMatch(/pilot_xds_pushes\{type="wads"\} 1\n/);
    expect(metrics).toContain("citadel_server_root_cert_expiry_timestamp");
    const version = await fetch(`http://127.0.0.1:${app.ports.metrics}/version`);
    expect(await version.json()).toMatchObject({ component: "istiod-lite" });
    expect((await fetch(fixture.url("/ready"))).status).toBe(200);
  });

  it("writes to a policy what ztunnels make of it and that they have it, each once", async () => {
    const store = new FolderStore(fixture.folder);
    const key = { kind: "AuthorizationPolicy", namespace: "shop", name: "only-web" } as const;
    const policy = POLICY.replace("namespace: shop}", "namespace: shop, generation: 4}");
    fixture.write("authorizationpolicy.shop.only-web.yaml", policy);
    fixture.write("pod.shop.reviews-1.yaml", pod("reviews-1"));
    await fixture.start({ STATUS_DIR: fixture.folder });
    using client = new TestClient(fixture.plaintext);
    await client.untilSynced();
    const watcher = watch(fixture.folder);
    const conditions = () => store.get(key)?.status?.conditions ?? [];
    while (conditions().length < 2) await once(watcher, "change");
    watcher.close();
    const told = [
      { type: "ZtunnelAccepted", status: "True", reason: "Accepted", observedGeneration: 4 },
      {
        type: "ambit.io/Applied",
        status: "True",
        message:
          "in force at the ztunnels of pods with app=reviews of namespace shop: acknowledged by 1 ztunnel",
        observedGeneration: 4,
      },
    ];
    expect(conditions()).toMatchObject(told);
    expect(await (await fetch(fixture.url("/debug/statusz"))).json()).toMatchObject([
      { key, conditions: [{ type: "ZtunnelAccepted" }, { type: "ambit.io/Applied" }] },
    ]);
    // The writes came back as events; what follows them must not be another write.
    fixture.write("pod.shop.reviews-2.yaml", pod("reviews-2"));
    await client.signal.until(() => client.of(TYPE_ADDRESS).size === 2);
    expect(store.get(key)?.metadata.resourceVersion).toBe("2");
  });

  it("gives the hosts of a ServiceEntry addresses, keeps them in its status, and serves them", async () => {
    const store = new FolderStore(fixture.folder);
    const key = { kind: "ServiceEntry", namespace: "shop", name: "db" } as const;
    fixture.write("serviceentry.shop.db.yaml", SERVICE_ENTRY);
    await fixture.start({ STATUS_DIR: fixture.folder });
    const watcher = watch(fixture.folder);
    const given = () => store.get(key)?.status?.addresses;
    while (given() === undefined) await once(watcher, "change");
    watcher.close();
    const [v4, v6] = given()!.map(({ value }) => value);
    expect([v4, v6]).toEqual([
      expect.stringMatching(/^240\.240\./),
      expect.stringMatching(/^2001:2::/),
    ]);
    using client = new TestClient(fixture.plaintext);
    await client.untilSynced();
    const update = client.updates.find(({ typeUrl }) => typeUrl === TYPE_ADDRESS);
    const service = update?.upserts.find(({ name }) => name === "shop/db.test")?.value;
    expect(fromBinary(AddressSchema, service!).type.value).toMatchObject({
      addresses: [{ address: Buffer.from(v4!.split(".").map(Number)) }, {}],
    });
  });

  it("speaks TLS to token holders, only as the node they are", async () => {
    fixture.write("mesh.yaml", pod("reviews-1"), ZTUNNEL);
    const { env, token } = await tokens(fixture.folder);
    const app = await fixture.start(env);
    const target = () => Promise.resolve({ address: fixture.secure, rootPem: app.rootBundlePem() });
    const bearer = `Bearer ${await token("istio-system", "ztunnel", "ztunnel-a", "uid-ztunnel")}`;
    using client = new TestClient(fixture.secure, {
      target,
      metadata: () => Promise.resolve({ authorization: bearer }),
    });
    await client.untilSynced();
    const root = { rootPem: app.rootBundlePem() };
    using anonymous = new RawStream({ address: fixture.secure, ...root });
    anonymous.open(TYPE_ADDRESS);
    expect(await anonymous.ended).toBe("authentication failure");
    const shop = `Bearer ${await token("shop", "reviews", "reviews-1", "uid-reviews-1")}`;
    using impostor = new RawStream({ address: fixture.secure, ...root }, { authorization: shop });
    impostor.open(TYPE_ADDRESS);
    expect(await impostor.ended).toContain("is not of the caller's namespace shop");
  });

  it("signs certificates for the pods of a ztunnel's node", async () => {
    fixture.write("mesh.yaml", pod("reviews-1"), ZTUNNEL);
    const { env, token } = await tokens(fixture.folder);
    const app = await fixture.start(env);
    const client = createClient({ address: fixture.secure, rootPem: app.rootBundlePem() });
    const authorization = `Bearer ${await token("istio-system", "ztunnel", "ztunnel-a", "uid-ztunnel")}`;
    const identity = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "reviews" };
    const { csrPem, keyPem } = createCsr(identity);
    const ask = (ImpersonatedIdentity: string) =>
      callUnary(
        client,
        IstioCertificateService.method.createCertificate,
        create(IstioCertificateRequestSchema, { csr: csrPem, metadata: { ImpersonatedIdentity } }),
        { metadata: { authorization }, deadlineMs: Date.now() + 10_000 },
      );
    const { certChain } = await ask("spiffe://cluster.local/ns/shop/sa/reviews");
    expect(certificateFromChain(identity, keyPem, certChain).identity).toEqual(identity);
    await expect(ask("spiffe://cluster.local/ns/shop/sa/admin")).rejects.toThrow(
      "request impersonation authentication failure",
    );
    client.close();
  });

  it("drains: streams end cleanly, ports close", async () => {
    fixture.write("mesh.yaml", pod("reviews-1"));
    const app = await fixture.start();
    using raw = new RawStream({ address: fixture.plaintext });
    raw.open(TYPE_ADDRESS);
    await raw.response(0);
    app.stop();
    expect(await raw.ended).toBe("OK");
    await app.stopped;
    await expect(fetch(fixture.url("/ready"))).rejects.toThrow();
  });
});

describe("istiod-lite refuses to start", () => {
  it("when a port is taken, and closes what it had opened", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const port = String((taken.address() as { port: number }).port);
    await expect(fixture.start({ XDS_TLS_PORT: port })).rejects.toThrow(
      expect.objectContaining({
        exitCode: 1,
        message: expect.stringContaining(`127.0.0.1:${port} (xDS over TLS): it is in use`),
      }),
    );
    taken.close();
  });

  it("when a manifest folder does not exist", async () => {
    await expect(fixture.start({ MANIFESTS: "/does/not/exist" })).rejects.toThrow(
      "cannot read manifests from /does/not/exist: it does not exist",
    );
  });

  it("when a plugged-in CA is incomplete", async () => {
    fixture.write("ca-cert.pem", "");
    await expect(fixture.start({ CACERTS_DIR: fixture.folder })).rejects.toThrow(
      "lacks ca-key.pem, root-cert.pem, cert-chain.pem",
    );
  });

  it("when the token keys are not there", async () => {
    const env = { JWKS_FILE: join(fixture.folder, "none"), TOKEN_ISSUER: ISSUER };
    await expect(fixture.start(env)).rejects.toThrow(/JWKS_FILE .*none: ENOENT/);
  });
});
