// Certificates that are taken back while whole ztunnel processes run: new connections are refused, those
// that are open end, on the side that has the list, which is ours; with PEER_ZTUNNEL=PATH the other side is
// another make's (Istio's).

import { renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CaServer } from "./ca-server.ts";
import { ended, Lab, roundTrip, type Ztunnel } from "./lab.ts";

const NODES = { client: "node-client", server: "node-server" };
const LOADED = { message: "revocation lists loaded" };

type Side = "client" | "server";

const PEER = process.env["PEER_ZTUNNEL"];

let lab: Lab;
let ca: CaServer;
let list: string;

beforeEach(async () => {
  lab = new Lab();
  ca = await CaServer.start(lab);
  list = join(lab.folder, "crl.pem");
});
afterEach(() => {
  ca[Symbol.dispose]();
  lab[Symbol.dispose]();
});

/** One ztunnel per side; `enforcing` has the list. */
async function start(enforcing: Side): Promise<Record<Side, Ztunnel>> {
  const begin = async (side: Side) => {
    const env = {
      LOCAL_XDS_PATH: lab.writeMesh(NODES),
      XDS_ADDRESS: "",
      ISTIO_META_DNS_CAPTURE: "false",
      ...ca.env(side),
      ...(side === enforcing && { CRL_PATH: list }),
    };
    const program = side === enforcing || PEER === undefined ? undefined : [PEER];
    const ztunnel = lab.dedicated(side, env, program);
    await ztunnel.untilReady();
    return ztunnel;
  };
  const [client, server] = await Promise.all([begin("client"), begin("server")]);
  lab.echo();
  return { client, server };
}

/** The serial number, in hexadecimal, of the only certificate that a dedicated ztunnel has. */
async function serialOf(ztunnel: Ztunnel): Promise<string> {
  interface Dump {
    readonly certificates: readonly {
      readonly state: string;
      readonly certChain: readonly { readonly serialNumber: string }[];
    }[];
  }
  const isThere = (dump: unknown) => (dump as Dump).certificates[0]?.state === "Available";
  await ztunnel.untilJson("/config_dump", isThere);
  const { certificates } = (await ztunnel.json("/config_dump")) as Dump;
  const hex = BigInt(certificates[0]!.certChain[0]!.serialNumber).toString(16);
  return hex.padStart(hex.length + (hex.length % 2), "0");
}

/** Puts a list in place the way volumes are updated: whole, by a rename. */
function revoke(...serialNumbers: string[]): void {
  writeFileSync(`${list}.next`, ca.revoke(...serialNumbers));
  renameSync(`${list}.next`, list);
}

describe.each<[Side, Side, "destination" | "source"]>([
  ["server", "client", "destination"],
  ["client", "server", "source"],
])("where the %s's ztunnel has a list", (enforcing, revoked, reporter) => {
  it(`a revoked ${revoked} is refused`, async () => {
    const both = await start(enforcing);
    await both[enforcing].line({ message: "no file of revocation lists" });
    await roundTrip(await lab.connect(), "certificates are asked for when they are needed");
    revoke(await serialOf(both[revoked]));
    await both[enforcing].line({ ...LOADED, revoked: 1 });
    await ended(await lab.connect());
    const line = await both[enforcing].line({ scope: "access", reason: "CERT_REVOKED" });
    expect(line["error"]).toMatch(/certificate revoked by CRL \(serial /);
    const metric = "istio_crl_policy_rejections_total";
    // A tunnel that was kept for later counts as well.
    const rejections = await both[enforcing].metric(metric, `reporter="${reporter}"`);
    expect(rejections).toBeGreaterThan(0);
    expect(await both[revoked].metric(metric)).toBe(0);
  });

  it(`what a ${revoked} has open ends once it is revoked, and not before`, async () => {
    const both = await start(enforcing);
    const socket = await lab.connect();
    expect(await roundTrip(socket, "hello")).toBe("hello");
    revoke("01", "02");
    await both[enforcing].line({ ...LOADED, revoked: 2 });
    expect(await roundTrip(socket, "again")).toBe("again");
    revoke(await serialOf(both[revoked]));
    await ended(socket);
    const complete = { message: "connection complete", reason: "CERT_REVOKED" };
    const line = await both[enforcing].line(complete);
    expect(line["error"]).toMatch(/^connection closed: peer .*certificate revoked by CRL/);
    const closed = "istio_tcp_connections_closed_total";
    expect(await both[enforcing].metric(closed, 'response_flags="CERT_REVOKED"')).toBe(1);
  });
});

it("a list that is broken or gone is said in the log, and what was in force stays", async () => {
  const { client, server } = await start("server");
  await roundTrip(await lab.connect(), "certificates are asked for when they are needed");
  revoke(await serialOf(client));
  await server.line({ ...LOADED, revoked: 1 });
  writeFileSync(list, "nonsense");
  await server.line({ message: "revocation lists not loaded" });
  await ended(await lab.connect());
  rmSync(list);
  const gone = () =>
    server.lines.filter(({ message }) => message === "no file of revocation lists");
  await expect.poll(() => gone().length, { timeout: 10_000 }).toBe(2);
  await ended(await lab.connect());
  revoke();
  await server.line({ ...LOADED, revoked: 0 });
  // The line is the main thread's; its workers hear of the list at the same moment.
  const hello = async () => roundTrip(await lab.connect(), "hello").catch(String);
  await expect.poll(hello).toBe("hello");
});
