import { describe, expect, it } from "vitest";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { SpiffeId } from "@ambit/common/tls/identity.ts";
import { TestMesh } from "../state/testing-mesh.ts";
import { Between } from "./between.ts";
import type { ConnectionFacts } from "./connection-telemetry.ts";
import { type Party, partyOfWorkload } from "./party.ts";

const address = { ip: "10.0.0.1" as Ip, port: 80 };
const mesh = new TestMesh().workload("web", ["10.0.0.1"]).workload("db", ["10.0.0.2"]);
const web = partyOfWorkload(mesh.get("web"));
const db = partyOfWorkload(mesh.get("db"));
const SERVICE = { hostname: "db.ns", namespace: "ns", name: "db" };

function facts(changes: Partial<ConnectionFacts> = {}): ConnectionFacts {
  const [source, destination] = [web, db];
  const common = { id: "1", sourceAddress: address, destinationAddress: address };
  return { ...common, direction: "outbound", path: "hbone", source, destination, ...changes };
}

describe("what is the same between two workloads", () => {
  it("is asked for once, whoever their connections are", () => {
    const between = new Between<number>();
    let asked = 0;
    const find = (given: ConnectionFacts) => between.find(given, () => ++asked);
    expect([find(facts()), find(facts({ id: "2", path: "local" }))]).toEqual([1, 1]);
  });

  it.each<[string, Partial<ConnectionFacts>]>([
    ["the other direction", { direction: "inbound" }],
    ["another destination", { destination: web }],
    ["another source", { source: db }],
    ["a service", { service: SERVICE }],
    ["a source's identity", { sourceIdentity: "spiffe://a" as SpiffeId }],
    ["a destination's identity", { destinationIdentity: "spiffe://a" as SpiffeId }],
    ["a principal", { destinationPrincipal: "spiffe://a" as SpiffeId }],
  ])("is asked for anew for %s, and again for what was before", (_, changes) => {
    const between = new Between<string>();
    expect(between.find(facts(), () => "first")).toBe("first");
    expect(between.find(facts(changes), () => "changed")).toBe("changed");
    expect(between.find(facts(changes), () => "again")).toBe("changed");
  });

  it.each<[string, Partial<ConnectionFacts>]>([
    ["namespace", { service: { ...SERVICE, namespace: "other" } }],
    ["name", { service: { ...SERVICE, name: "other" } }],
  ])("is asked for anew for another %s of the service", (_, changes) => {
    const between = new Between<string>();
    between.find(facts({ service: SERVICE }), () => "first");
    expect(between.find(facts(changes), () => "changed")).toBe("changed");
  });

  it("is not kept for a party of one connection only", () => {
    const between = new Between<number>();
    const guest: Party = { name: "guest" };
    let asked = 0;
    for (const given of [facts({ source: guest }), facts({ destination: guest })]) {
      between.find(given, () => ++asked);
      between.find(given, () => ++asked);
    }
    expect(asked).toBe(4);
  });
});
