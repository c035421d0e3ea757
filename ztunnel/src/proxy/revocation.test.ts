import { afterEach, describe, expect, it } from "vitest";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import { parseRevocationLists } from "@ambit/common/tls/revocation-list.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { HbonePeer, relayTo, type Script } from "../testing/hbone-peer.ts";
import { identityOf, InboundLab, talkThrough } from "../testing/inbound-lab.ts";
import { CLIENT_IP, OutboundLab, portOf } from "../testing/outbound-lab.ts";
import type { TestContext } from "../testing/test-context.ts";
import { applyRevocations, RevocationGuard } from "./revocation.ts";

const opened: Disposable[] = [];
afterEach(() => {
  for (const lab of opened.splice(0)) lab[Symbol.dispose]();
});

const load = (context: TestContext, ...pems: string[]) =>
  applyRevocations(context, parseRevocationLists(Buffer.from(pems.join(""))));

const rejections = (guard: RevocationGuard) =>
  guard.collect().flatMap(({ values }) => values.map(({ labels, value }) => [labels, value]));

async function inbound(ca = new TestCa()) {
  const guard = new RevocationGuard();
  const lab = await InboundLab.open({ ca, revocation: guard });
  opened.push(lab);
  return { lab, guard };
}

describe("a revoked client", () => {
  it("is refused, with the reason in the log and in the metric", async () => {
    const { lab, guard } = await inbound();
    const client = lab.ca.issue(identityOf("client"));
    load(lab.context, lab.ca.revoke(client.serialNumber));
    await lab.secure(client);
    const line = await lab.line({ scope: "access", reason: "CERT_REVOKED" });
    expect(line).toMatchObject({ message: "connection failed", direction: "inbound" });
    expect(line["error"]).toMatch(/spiffe:.*\/sa\/client: certificate revoked by CRL \(serial /);
    expect(rejections(guard)).toEqual([[{ reporter: "destination" }, 1]]);
    expect(guard.guardedTunnels).toBe(0);
  });

  it("loses what it has open as soon as a new list names it; others do not", async () => {
    const { lab, guard } = await inbound();
    const [bad, good] = [lab.ca.issue(identityOf("bad")), lab.ca.issue(identityOf("good"))];
    const [badClient, goodClient] = [await lab.connect(bad), await lab.connect(good)];
    const badTalk = await talkThrough(await lab.open(badClient));
    const goodTalk = await talkThrough(await lab.open(goodClient));
    expect([await badTalk.say("a"), await goodTalk.say("b")]).toEqual(["a", "b"]);
    load(lab.context, lab.ca.revoke(bad.serialNumber));
    await badTalk.closed;
    const line = await lab.line({ message: "connection complete", reason: "CERT_REVOKED" });
    expect(line["error"]).toMatch(/^connection closed: peer .*sa\/bad: certificate revoked by CRL/);
    expect(await goodTalk.say("still here")).toBe("still here");
    expect(guard.guardedTunnels).toBe(1);
    expect(rejections(guard)).toEqual([[{ reporter: "destination" }, 1]]);
    expect(lab.context.telemetry.metrics.collect()).toContainEqual(
      expect.objectContaining({
        name: "istio_tcp_connections_closed",
        values: [{ labels: expect.objectContaining({ response_flags: "CERT_REVOKED" }), value: 1 }],
      }),
    );
    goodClient.close();
    await goodTalk.closed;
  });

  it("loses it too when the intermediate that vouches for it is named", async () => {
    const root = new TestCa("root");
    const intermediate = new TestCa("intermediate", root);
    const { lab } = await inbound(intermediate);
    const talk = await talkThrough(
      await lab.open(await lab.connect(intermediate.issue(identityOf("client")))),
    );
    expect(await talk.say("hello")).toBe("hello");
    load(lab.context, intermediate.revoke("01"));
    expect(await talk.say("again")).toBe("again");
    load(lab.context, root.revoke(intermediate.serialNumber));
    await talk.closed;
    const line = await lab.line({ message: "connection complete" });
    expect(line["error"]).toContain("intermediate certificate revoked by CRL");
  });

  it("is let in again when the list no longer names it", async () => {
    const { lab } = await inbound();
    const client = lab.ca.issue(identityOf("client"));
    load(lab.context, lab.ca.revoke(client.serialNumber));
    await lab.secure(client);
    await lab.line({ reason: "CERT_REVOKED" });
    load(lab.context, "");
    const talk = await talkThrough(await lab.open(await lab.connect(client)));
    expect(await talk.say("back")).toBe("back");
  });
});

const VIP = "127.0.0.2";

describe("a revoked server", () => {
  async function outbound(script?: Script) {
    const mesh = new TestMesh().workload("client", [CLIENT_IP]).workload("waypoint", ["127.0.0.3"]);
    const guard = new RevocationGuard();
    const lab = new OutboundLab(mesh, {}, { revocation: guard });
    const [destination, echo] = [await lab.destination(VIP), await lab.echo("127.0.0.1")];
    const certificate = lab.certificate("waypoint");
    const answer = script ?? relayTo(portOf(echo), "127.0.0.1");
    const peer = await HbonePeer.listen("127.0.0.3", certificate, answer);
    const { address } = { address: new Uint8Array([127, 0, 0, 3]) };
    mesh.service("web", [VIP], {
      ports: [{ servicePort: portOf(destination), targetPort: 80 }],
      waypoint: {
        destination: { case: "address", value: { address } },
        hboneMtlsPort: peer.port,
      },
    });
    opened.push(lab, peer);
    return { lab, guard, destination, peer, certificate };
  }

  it("is not spoken to, with the reason in the log and in the metric", async () => {
    const { lab, guard, destination, peer, certificate } = await outbound();
    load(lab.context, lab.ca.revoke(certificate.serialNumber));
    expect(await lab.talk(destination, "hello")).toBe("");
    const error = expect.stringMatching(/sa\/waypoint: certificate revoked by CRL \(serial /);
    expect(lab.lines()).toMatchObject([{ reason: "CERT_REVOKED", error, direction: "outbound" }]);
    expect(peer.requests).toEqual([]);
    expect(rejections(guard)).toEqual([[{ reporter: "source" }, 1]]);
  });

  it("is not waited for any longer when it is to answer", async () => {
    const { promise: asked, resolve } = Promise.withResolvers<void>();
    const { lab, destination, certificate } = await outbound(() => resolve());
    const talked = lab.talk(destination, "hello");
    await asked;
    load(lab.context, lab.ca.revoke(certificate.serialNumber));
    expect(await talked).toBe("");
    const error = expect.stringMatching(/^connection closed: peer .*certificate revoked by CRL/);
    expect(lab.lines()).toMatchObject([{ reason: "CERT_REVOKED", error }]);
  });

  it("loses what is open, and its tunnel leaves the pool", async () => {
    const { lab, guard, destination, certificate } = await outbound();
    const talk = lab.converse(destination);
    expect(await talk.say("hello")).toBe("hello");
    expect([lab.pod.pool.liveConnections, guard.guardedTunnels]).toEqual([1, 1]);
    load(lab.context, lab.ca.revoke("01"));
    expect(await talk.say("again")).toBe("again");
    load(lab.context, lab.ca.revoke(certificate.serialNumber));
    await talk.closed;
    const error = expect.stringMatching(/^connection closed: peer .*certificate revoked by CRL/);
    expect(lab.lines()).toMatchObject([{ reason: "CERT_REVOKED", error }]);
    expect([lab.pod.pool.pooledConnections, guard.guardedTunnels]).toEqual([0, 0]);
    expect(rejections(guard)).toEqual([[{ reporter: "source" }, 1]]);
  });
});

it("without lists, nobody is looked at", async () => {
  const lab = await InboundLab.open();
  opened.push(lab);
  applyRevocations(lab.context, parseRevocationLists(Buffer.from(lab.ca.revoke("01"))));
  const client = lab.ca.issue(identityOf("client"));
  const talk = await talkThrough(await lab.open(await lab.connect(client)));
  expect(await talk.say("hello")).toBe("hello");
});
