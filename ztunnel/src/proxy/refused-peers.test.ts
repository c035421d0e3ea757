import { once } from "node:events";
import tls from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { spiffeId } from "@ambit/common/tls/identity.ts";
import { bytes, TestMesh } from "../state/testing-mesh.ts";
import { HbonePeer, relayTo } from "../testing/hbone-peer.ts";
import { identityOf, InboundLab } from "../testing/inbound-lab.ts";
import { CLIENT_IP, OutboundLab, portOf } from "../testing/outbound-lab.ts";

// Who a peer is refused as, and that the log says so, on both sides of a tunnel.

const HOUR_MS = 3_600_000;
const stranger = new TestCa("stranger");

/** what is wrong, how such a certificate is made for a service account, what the log must say. */
type Wrong = readonly [
  string,
  (ca: TestCa, account: string) => WorkloadCertificate,
  { readonly inbound: RegExp; readonly outbound: RegExp },
];

const alike = (reason: RegExp) => ({ inbound: reason, outbound: reason });

const WRONG: readonly Wrong[] = [
  [
    "has expired",
    (ca, account) => ca.issue(identityOf(account), { notAfterMs: Date.now() - 1_000 }),
    alike(/certificate has expired/),
  ],
  [
    "is not valid yet",
    (ca, account) => ca.issue(identityOf(account), { notBeforeMs: Date.now() + HOUR_MS / 2 }),
    alike(/certificate is not yet valid/),
  ],
  [
    "comes from another root",
    (ca, account) => ({ ...stranger.issue(identityOf(account)), rootsPem: [ca.rootPem] }),
    alike(/unable to (get local issuer|verify the first) certificate|self.signed certificate/),
  ],
  [
    "comes without the intermediate that vouches for it",
    (ca, account) => ({
      ...new TestCa("between", ca).issue(identityOf(account)),
      intermediatesPem: [],
    }),
    alike(/unable to (get local issuer|verify the first) certificate/),
  ],
  [
    "is of another trust domain",
    (ca, account) => ca.issue(identityOf(account, "elsewhere")),
    {
      inbound: /spiffe:\/\/elsewhere\/ns\/ns\/sa\/client is not of trust domain cluster\.local/,
      outbound: /peer is spiffe:\/\/elsewhere\/.*, expected spiffe:\/\/cluster\.local\//,
    },
  ],
  [
    "holds no SPIFFE identity",
    (ca, account) => ca.issue(identityOf(account), { sans: [{ type: "dns", value: account }] }),
    alike(/holds no SPIFFE identity/),
  ],
  [
    "holds an identity that is none",
    (ca, account) =>
      ca.issue(identityOf(account), { sans: [{ type: "uri", value: "spiffe://td/ns/x" }] }),
    alike(/holds no SPIFFE identity/),
  ],
];

describe("a client whose certificate", () => {
  let lab: InboundLab;
  beforeEach(async () => (lab = await InboundLab.open()));
  afterEach(() => lab[Symbol.dispose]());

  const usage: Wrong = [
    "may not be used by clients",
    (ca, account) => ca.issue(identityOf(account), { purposes: ["serverAuth"] }),
    alike(/unsuitable certificate purpose/),
  ];

  it.each([...WRONG, usage])("%s is refused", async (_, make, { inbound }) => {
    await lab.secure(make(lab.ca, "client"));
    const line = await lab.line({ scope: "access", reason: "TLS_FAILED" });
    expect(line).toMatchObject({
      level: "warn",
      message: "connection failed",
      direction: "inbound",
    });
    expect(line["error"]).toMatch(inbound);
    expect(line["src.addr"]).toMatch(/^127\.0\.0\.1:\d+$/);
  });

  it("is missing is refused", async () => {
    const socket = await lab.dial();
    const secured = tls.connect({ socket, rejectUnauthorized: false, ALPNProtocols: ["h2"] });
    secured.on("error", () => undefined);
    const line = await lab.line({ scope: "access", reason: "TLS_FAILED" });
    expect(line["error"]).toMatch(/did not return a certificate|presented no certificate/);
    secured.destroy();
  });

  it.each<[string, Buffer, RegExp]>([
    ["is no TLS at all", Buffer.from("GET / HTTP/1.1\r\n\r\n"), /TLS handshake failed/],
    ["is cut off", Buffer.from([0x16, 3, 1]), /closed during the TLS handshake/],
    ["is plain HTTP/2", Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), /TLS handshake failed/],
  ])("%s is refused", async (_, first, reason) => {
    const socket = await lab.dial();
    socket.end(first);
    const line = await lab.line({ scope: "access", reason: "TLS_FAILED" });
    expect(line["error"]).toMatch(reason);
  });

  it("is right is let in, also one that trusts and is trusted through an intermediate", async () => {
    const between = new TestCa("between", lab.ca);
    for (const ca of [lab.ca, between]) {
      const client = await lab.connect(ca.issue(identityOf("client")));
      expect((await lab.open(client)).status).toBe(200);
      client.close();
    }
  });
});

describe("a server whose certificate", () => {
  const opened: Disposable[] = [];
  afterEach(() => {
    for (const one of opened.splice(0)) one[Symbol.dispose]();
  });

  const usage: Wrong = [
    "may not be used by servers",
    (ca, account) => ca.issue(identityOf(account), { purposes: ["clientAuth"] }),
    alike(/unsuitable certificate purpose/),
  ];
  const someoneElse: Wrong = [
    "is somebody else's",
    (ca) => ca.issue(identityOf("somebody-else")),
    alike(/peer is spiffe:.*\/sa\/somebody-else, expected spiffe:.*\/sa\/waypoint/),
  ];

  it.each([...WRONG, usage, someoneElse])("%s is refused", async (_, make, { outbound }) => {
    const mesh = new TestMesh().workload("client", [CLIENT_IP]).workload("waypoint", ["127.0.0.3"]);
    const lab = new OutboundLab(mesh);
    const [destination, echo] = [await lab.destination("127.0.0.2"), await lab.echo("127.0.0.1")];
    const script = relayTo(portOf(echo), "127.0.0.1");
    const peer = await HbonePeer.listen("127.0.0.3", make(lab.ca, "waypoint"), script);
    opened.push(lab, peer);
    mesh.service("web", ["127.0.0.2"], {
      ports: [{ servicePort: portOf(destination), targetPort: 80 }],
      waypoint: {
        destination: { case: "address", value: { address: bytes("127.0.0.3") } },
        hboneMtlsPort: peer.port,
      },
    });
    expect(await lab.talk(destination, "hello")).toBe("");
    const error = expect.stringMatching(outbound);
    expect(lab.lines()).toMatchObject([{ reason: "TLS_FAILED", error, direction: "outbound" }]);
    expect(peer.requests).toEqual([]);
  });
});

it("without a certificate of our own, nobody is let in, and the log says whose is missing", async () => {
  const lab = await InboundLab.open();
  const own = lab.context.certificates;
  own.update(spiffeId(identityOf("web")), undefined, "the CA is away");
  const socket = await lab.dial();
  const closed = once(
    socket.on("end", () => socket.end()),
    "close",
  );
  const line = await lab.line({ scope: "access", reason: "IDENTITY_UNAVAILABLE" });
  expect(line["error"]).toContain("sa/web is unavailable: the CA is away");
  socket.resume();
  await closed;
  lab[Symbol.dispose]();
});
