import { createPrivateKey, type KeyObject, randomUUID, X509Certificate } from "node:crypto";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, it } from "vitest";
import { issueRevocationList } from "@ambit/common/testing/revocation-list-issuer.ts";
import { createRoot } from "@ambit/common/tls/issuer.ts";
import { generateKeyPair, issueCertificate } from "@ambit/common/tls/x509.ts";
import { isOurs, Lab } from "./lab.ts";
import { expectAllServed, underLoad } from "./load/load.ts";
import { SHOP } from "./shop.ts";

const HOUR_MS = 3_600_000;
const NODES = ["node-1", "node-2"];
/** Some seconds of load on what is new alone. */
const ROUNDS_AFTERWARDS = 50;
const STEP = { timeout: 20_000, interval: 200 };

interface PluggedIn {
  readonly rootPem: string;
  readonly rootKey: KeyObject;
  readonly files: Readonly<Record<string, string>>;
}

/** Of the certificates of one identity, as `ambit ztunnel certificates` shows them. */
interface Certificates {
  readonly certChain: readonly { readonly serialNumber: string }[];
  readonly rootCerts: readonly { readonly serialNumber: string }[];
}

const serialOf = (pem: string) => BigInt(`0x${new X509Certificate(pem).serialNumber}`).toString();

/** A root, all of the same name as Istio's are, and an intermediate that signs for workloads. */
function newCa(): PluggedIn {
  const root = createRoot("cluster.local", Date.now());
  const key = generateKeyPair();
  const intermediatePem = issueCertificate(
    {
      publicKey: key.publicKey,
      organization: `intermediate-${randomUUID()}`,
      notBeforeMs: Date.now() - HOUR_MS,
      notAfterMs: Date.now() + 24 * HOUR_MS,
      isCa: true,
    },
    { certificatePem: root.certificatePem, privateKey: createPrivateKey(root.keyPem) },
  );
  return {
    rootPem: root.certificatePem,
    rootKey: createPrivateKey(root.keyPem),
    files: {
      "ca-cert.pem": intermediatePem,
      "ca-key.pem": key.privateKey.export({ type: "pkcs8", format: "pem" }),
      "cert-chain.pem": intermediatePem,
    },
  };
}

describe("the root of a running mesh", () => {
  const folder = mkdtempSync(join(tmpdir(), "ambit-cacerts-"));
  const [before, after] = [newCa(), newCa()];
  const lab = new Lab({
    CACERTS_DIR: folder,
    ISTIO_MULTIROOT_MESH: "true",
    SECRET_TTL: "60s",
    // A tunnel for every second request, so that handshakes happen all the time.
    POOL_MAX_STREAMS_PER_CONNECTION: "2",
  });

  /** What an operator does: the files of a CA and the roots to trust, each put in place at once. */
  function plugIn(ca: PluggedIn, roots: readonly PluggedIn[]): void {
    const rootsPem = roots.map(({ rootPem }) => rootPem).join("");
    for (const [name, text] of Object.entries({ ...ca.files, "root-cert.pem": rootsPem })) {
      put(name, text);
    }
  }

  function put(name: string, text: string): void {
    writeFileSync(join(folder, `.${name}`), text, { mode: 0o600 });
    renameSync(join(folder, `.${name}`), join(folder, name));
  }

  /** The list of a root that takes back these certificates. */
  function revoke({ rootPem, rootKey }: PluggedIn, ...pems: string[]): void {
    const serialNumbers = pems.map((pem) => new X509Certificate(pem).serialNumber);
    const issuer = { certificatePem: rootPem, privateKey: rootKey };
    put("ca-crl.pem", issueRevocationList({ serialNumbers }, issuer));
  }

  /** Serial numbers of what all workloads rest on: the intermediate that signed, the roots they trust. */
  async function trust(): Promise<string[]> {
    const all = new Set<string>();
    for (const node of NODES) {
      const text = await lab.must("ztunnel", "certificates", "--node", node, "-o", "json");
      for (const { certChain, rootCerts } of JSON.parse(text) as Certificates[]) {
        const serials = [...certChain.slice(1), ...rootCerts].map(
          ({ serialNumber }) => serialNumber,
        );
        all.add(serials.join(", "));
      }
    }
    return [...all];
  }

  const resting = (ca: PluggedIn, roots: readonly PluggedIn[]) => [
    [ca.files["ca-cert.pem"]!, ...roots.map(({ rootPem }) => rootPem)].map(serialOf).join(", "),
  ];

  beforeAll(() => {
    plugIn(before, [before]);
    return lab.up(SHOP, "--same-node", "hbone");
  });
  afterAll(async () => {
    await lab.down();
    rmSync(folder, { recursive: true, force: true });
  });

  it("is replaced with overlap under load, without one failed request", async ({ expect }) => {
    await expect.poll(trust, STEP).toEqual(resting(before, [before]));
    const steps: [PluggedIn, PluggedIn[]][] = [
      [before, [before, after]],
      [after, [before, after]],
      [after, [after]],
    ];
    const startMs = performance.now();
    const outcome = await underLoad(lab, {}, async (load) => {
      for (const [ca, roots] of steps) {
        plugIn(ca, roots);
        await expect.poll(trust, STEP).toEqual(resting(ca, roots));
      }
      await load.rounds(ROUNDS_AFTERWARDS);
    });
    expectAllServed(expect, outcome, (performance.now() - startMs) / 1000);
    expect(await trust()).toEqual(resting(after, [after]));
  });

  it.runIf(isOurs("node-1"))(
    "takes back an intermediate: nobody who rests on it is trusted, until it is given back",
    async ({ expect }) => {
      const reach = () => lab.reach("client.shop", "http://far/");
      revoke(before, before.files["ca-cert.pem"]!);
      const loaded = () => lab.must("local", "logs", "ztunnel", "--node", "node-1");
      await expect.poll(loaded, STEP).toContain("revocation lists loaded");
      expect(await reach()).toBe("reached");
      revoke(after, after.files["ca-cert.pem"]!);
      await expect.poll(reach, STEP).toBe("refused");
      const refused = async () =>
        (await lab.accessLines("node-1")).filter((line) => line.includes("CERT_REVOKED"));
      // The first call to fail may be one whose tunnel was cut.
      const calledAgain = async () => {
        expect(await reach()).toBe("refused");
        return (await refused()).length;
      };
      await expect.poll(calledAgain, STEP).toBeGreaterThan(0);
      expect((await refused()).join("\n")).toContain("intermediate certificate revoked by CRL");
      revoke(after);
      await expect.poll(reach, STEP).toBe("reached");
    },
  );

  it("is not replaced all at once: what there is stays, and traffic goes on", async ({
    expect,
  }) => {
    const stranger = newCa();
    plugIn(stranger, [stranger]);
    const warned = async () => lab.must("local", "logs", "istiod-lite");
    await expect.poll(warned, STEP).toContain("plugged-in CA not reloaded");
    expect(await lab.reach("client.shop", "http://far/")).toBe("reached");
    expect(await trust()).toEqual(resting(after, [after]));
    plugIn(after, [after]);
  });
});
