import packet from "dns-packet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  IPFamilies,
  Service_Visibility,
  WorkloadStatus,
} from "@ambit/api/gen/istio/workload_pb.ts";
import { bytes, serves, TestMesh } from "../state/testing-mesh.ts";
import { DnsLab, NXDOMAIN, TRANSPORTS, Upstream, type UpstreamScript } from "../testing/dns-lab.ts";

// What Istio's DNS proxy answers, case by case, over UDP and TCP.

const at = (network: string, ip: string) => ({ network, address: bytes(ip) });

function mesh(): TestMesh {
  const far = { namespace: "ns2" };
  return new TestMesh()
    .workload("client", ["10.0.0.1"], { network: "nw1" })
    .service("google", [], { hostname: "www.google.com", addresses: [at("nw1", "1.1.1.1")] })
    .service("productpage", [], { addresses: [at("nw1", "9.9.9.9")] })
    .service("example", [], {
      ...far,
      hostname: "example.ns2.svc.cluster.local",
      addresses: [at("nw1", "10.10.10.10")],
    })
    .service("nslocal", [], {
      ...far,
      hostname: "nslocal.ns2.svc.cluster.local",
      addresses: [at("nw1", "10.10.10.240")],
      visibility: Service_Visibility.NAMESPACE,
    })
    .service("nslocalsame", [], {
      addresses: [at("nw1", "10.10.10.241")],
      visibility: Service_Visibility.NAMESPACE,
    })
    .service("details", [], {
      ...far,
      hostname: "details.ns2.svc.cluster.remote",
      addresses: [at("nw1", "11.11.11.11")],
    })
    .service("dual", [], {
      hostname: "dual.localhost",
      addresses: [at("nw1", "2.2.2.2"), at("nw1", "2001:db8::ff00:42:8329")],
    })
    .service("ipv4", [], { hostname: "ipv4.localhost", addresses: [at("nw1", "2.2.2.2")] })
    .service("ipv6", [], { hostname: "ipv6.localhost", addresses: [at("nw1", "2001:db8::1")] })
    .service("wild", [], { hostname: "*.wildcard", addresses: [at("nw1", "10.10.10.10")] })
    .service("wild-b", [], { hostname: "*.b.wildcard", addresses: [at("nw1", "11.11.11.11")] })
    .service("company", [], {
      hostname: "*.svc.mesh.company.net",
      addresses: [at("nw1", "10.1.2.3")],
    })
    .service("nw2-only", [], { addresses: [at("nw2", "22.22.22.22")] })
    .service("both-networks", [], {
      addresses: [at("nw1", "21.21.21.21"), at("nw2", "22.22.22.22")],
    })
    .service("headless", [])
    .workload("h0", ["30.30.30.30", "2001:db8::30"], inNw1(serves("headless")))
    .workload("h1", ["31.31.31.31", "2001:db8::31"], inNw1(serves("headless")))
    .workload("sick", ["32.32.32.32"], {
      ...inNw1(serves("headless")),
      status: WorkloadStatus.UNHEALTHY,
    })
    .service("headless-ipv6", [], { ipFamilies: IPFamilies.IPV6_ONLY })
    .workload("h6", ["33.33.33.33", "2001:db8::33"], inNw1(serves("headless-ipv6")))
    .service("external", [], { hostname: "headless.example.com" })
    .workload("e0", ["34.34.34.34"], {
      network: "nw1",
      services: { "ns/headless.example.com": { ports: [{ servicePort: 80, targetPort: 80 }] } },
    })
    .service("external-empty", [], { hostname: "headless-no-endpoints.example.com" })
    .service("preferred", [], {
      namespace: "preferred",
      hostname: "preferred.io",
      addresses: [at("nw1", "10.10.10.211")],
    })
    .service("preferred-too", [], {
      ...far,
      hostname: "preferred.io",
      addresses: [at("nw1", "10.10.10.212")],
    })
    .service("everywhere", [], {
      hostname: "everywhere.io",
      addresses: [at("nw1", "10.10.10.112")],
    })
    .service("everywhere-preferred", [], {
      namespace: "preferred",
      hostname: "everywhere.io",
      addresses: [at("nw1", "10.10.10.113")],
    })
    .service("canonical-preferred", [], {
      namespace: "preferred",
      hostname: "canonical.svc",
      addresses: [at("nw1", "10.10.10.142")],
    })
    .service("canonical", [], {
      ...far,
      hostname: "canonical.svc",
      canonical: true,
      addresses: [at("nw1", "10.10.10.141")],
    })
    .service("canonical-far", [], {
      ...far,
      hostname: "canonical.with.local",
      canonical: true,
      addresses: [at("nw1", "10.10.10.151")],
    })
    .service("canonical-local", [], {
      hostname: "canonical.with.local",
      addresses: [at("nw1", "10.10.10.150")],
    })
    .service("split-own", [], { hostname: "split.example.com" })
    .service("split-far", [], {
      ...far,
      hostname: "split.example.com",
      addresses: [at("nw1", "10.10.10.160")],
    });
}

const inNw1 = (services: ReturnType<typeof serves>) => ({ network: "nw1", services });

let lab: DnsLab;
let upstream: Upstream;

/** Knows one name and nothing else. */
const bing: UpstreamScript = (query, transport) => {
  const { id, questions } = packet.decode(query);
  if (questions?.[0]?.name !== "www.bing.com") return NXDOMAIN(query, transport);
  return packet.encode({
    type: "response",
    id: id!,
    questions,
    answers: [{ type: "A", name: "www.bing.com", ttl: 60, data: "1.1.1.1" }],
    additionals: [{ type: "AAAA", name: "www.bing.com", ttl: 60, data: "::1" }],
  });
};

beforeAll(async () => {
  upstream = await Upstream.listen(bing);
  lab = new DnsLab(mesh(), { upstreams: [upstream] });
});
afterAll(() => {
  lab[Symbol.dispose]();
  upstream[Symbol.dispose]();
});

type Type = "A" | "AAAA" | "NS" | "TXT" | "SRV" | "MX" | "CAA";

/** what, name, type, addresses, the name that the records belong to when a CNAME leads there. */
const OURS: readonly [string, string, Type, string[], string?][] = [
  ["a host outside Kubernetes", "www.google.com", "A", ["1.1.1.1"]],
  [
    "such a host with a search domain: a CNAME leads to it",
    "www.google.com.ns.svc.cluster.local",
    "A",
    ["1.1.1.1"],
    "www.google.com",
  ],
  ["any case of letters", "WWW.Google.COM", "A", ["1.1.1.1"]],
  ["a service by its full name", "productpage.ns.svc.cluster.local", "A", ["9.9.9.9"]],
  ["a service by name.namespace", "productpage.ns", "A", ["9.9.9.9"]],
  ["a service by name.namespace.svc", "productpage.ns.svc", "A", ["9.9.9.9"]],
  ["a service by its short name", "productpage", "A", ["9.9.9.9"]],
  [
    "name.namespace with a search domain: a CNAME leads to it",
    "productpage.ns.ns.svc.cluster.local",
    "A",
    ["9.9.9.9"],
    "productpage.ns",
  ],
  ["the same without such an address", "productpage.ns.ns.svc.cluster.local", "AAAA", []],
  ["name.namespace of another namespace", "example.ns2", "A", ["10.10.10.10"]],
  ["the full name in another namespace", "example.ns2.svc.cluster.local", "A", ["10.10.10.10"]],
  ["name.namespace.svc of another", "example.ns2.svc", "A", ["10.10.10.10"]],
  ["what only our namespace may see", "nslocalsame", "A", ["10.10.10.241"]],
  ["a service of a remote domain", "details.ns2.svc.cluster.remote", "A", ["11.11.11.11"]],
  ["A of both families", "dual.localhost", "A", ["2.2.2.2"]],
  ["AAAA of both families", "dual.localhost", "AAAA", ["2001:db8::ff00:42:8329"]],
  ["A where there is only AAAA: no data", "ipv6.localhost", "A", []],
  ["AAAA where there is only A: no data", "ipv4.localhost", "AAAA", []],
  ["a wildcard", "foo.wildcard", "A", ["10.10.10.10"]],
  ["a wildcard, several labels deep", "a.c.wildcard", "A", ["10.10.10.10"]],
  ["the more specific wildcard", "a.b.wildcard", "A", ["11.11.11.11"]],
  ["a wildcard with a domain", "foo.svc.mesh.company.net", "A", ["10.1.2.3"]],
  ["the same with a namespace", "foo.foons.svc.mesh.company.net", "A", ["10.1.2.3"]],
  [
    "a wildcard with a search domain: no CNAME",
    "foo.svc.mesh.company.net.ns.svc.cluster.local",
    "A",
    ["10.1.2.3"],
  ],
  ["a service whose VIP is on another network: no data", "nw2-only", "A", []],
  ["of several VIPs, the one on our network", "both-networks", "A", ["21.21.21.21"]],
  ["a headless service's healthy endpoints", "headless", "A", ["30.30.30.30", "31.31.31.31"]],
  ["the same over IPv6", "headless", "AAAA", ["2001:db8::30", "2001:db8::31"]],
  ["a headless service of one family", "headless-ipv6", "AAAA", ["2001:db8::33"]],
  ["and its other family: no data", "headless-ipv6", "A", []],
  ["the preferred namespace's", "preferred.io", "A", ["10.10.10.211"]],
  ["our own namespace's before the preferred one's", "everywhere.io", "A", ["10.10.10.112"]],
  ["the canonical one before the preferred namespace's", "canonical.svc", "A", ["10.10.10.141"]],
  ["our own before the canonical one", "canonical.with.local", "A", ["10.10.10.150"]],
  ["the one that has addresses", "split.example.com", "A", ["10.10.10.160"]],
];

describe.each(TRANSPORTS)("answers over %s", (transport) => {
  it.each(OURS)("%s: %s %s", async (_, name, type, addresses, canonicalName) => {
    const answer = await lab.ask(name, type, transport);
    expect(answer).toMatchObject({
      rcode: "NOERROR",
      flag_aa: true,
      flag_ra: true,
      flag_rd: true,
      flag_tc: false,
      questions: [{ name, type }],
    });
    const records = answer.answers ?? [];
    const cname = canonicalName !== undefined && addresses.length > 0;
    if (cname) {
      expect(records.shift()).toMatchObject({ type: "CNAME", name, data: canonicalName, ttl: 30 });
    }
    const owner = cname ? canonicalName : name;
    expect(new Set(records.map((record) => record.name))).toEqual(
      new Set(addresses.length > 0 ? [owner] : []),
    );
    const data = records.map((record) => "data" in record && record.data);
    expect(new Set(data)).toEqual(new Set(addresses));
    expect(data).toHaveLength(addresses.length);
  });

  it.each<[string, string, Type]>([
    ["a type that is not ours to answer, of a name that is", "productpage.ns", "NS"],
    ["TXT", "productpage.ns", "TXT"],
    ["SRV", "productpage.ns", "SRV"],
    ["MX", "productpage.ns", "MX"],
    ["CAA", "productpage.ns", "CAA"],
    ["what another namespace keeps to itself", "nslocal.ns2.svc.cluster.local", "A"],
    ["the short name of another namespace's service", "example", "A"],
    ["one pod of a headless service", "headless.pod0.ns.svc.cluster.local", "A"],
    ["the same by its short name", "headless.pod0.ns", "A"],
    ["a headless service outside Kubernetes", "headless.example.com", "A"],
    ["the same without endpoints", "headless-no-endpoints.example.com", "A"],
    ["the parent of a wildcard", "wildcard", "A"],
    ["a search domain itself", "ns.svc.cluster.local", "A"],
    ["the root", ".", "A"],
  ])("forwards %s: %s %s", async (_, name, type) => {
    const before = upstream.queries.length;
    const answer = await lab.ask(name, type, transport);
    expect(answer).toMatchObject({ rcode: "NXDOMAIN", flag_aa: false });
    expect(upstream.queries.length).toBe(before + 1);
  });

  it("forwards what the mesh does not know and gives back all that comes", async () => {
    const answer = await lab.ask("www.bing.com", "A", transport);
    expect(answer).toMatchObject({
      rcode: "NOERROR",
      flag_aa: false,
      answers: [{ data: "1.1.1.1" }],
      additionals: [{ data: "::1" }],
    });
  });
});

it("spreads addresses: each comes first in its turn", async () => {
  const firsts = new Set<unknown>();
  for (let i = 0; i < 64 && firsts.size < 2; i++) {
    const { answers } = await lab.ask("headless", "A");
    const [first] = answers ?? [];
    firsts.add(first && "data" in first ? first.data : undefined);
  }
  expect(firsts.size).toBe(2);
});

describe("search domains", () => {
  it("of the pod's namespace, not of ours: other namespaces' are not stripped", async () => {
    const found = await lab.ask("www.google.com.ns2.svc.cluster.local", "A");
    expect(found.rcode).toBe("NXDOMAIN");
    const shared = await lab.ask("www.google.com.svc.cluster.local", "A");
    expect(shared.answers?.[0]).toMatchObject({ type: "CNAME", data: "www.google.com" });
  });

  it("of our own resolv.conf where the workload is the one we run with", async () => {
    const surroundings = { upstreams: [upstream], searchDomains: ["corp.example"] };
    using dedicated = new DnsLab(mesh(), surroundings, { proxyMode: "dedicated" });
    const found = await dedicated.ask("www.google.com.corp.example", "A");
    expect(found.answers?.[0]).toMatchObject({ type: "CNAME", data: "www.google.com" });
    const other = await dedicated.ask("www.google.com.ns.svc.cluster.local", "A");
    expect(other.rcode).toBe("NXDOMAIN");
  });
});

it("with IPv6 switched off, names have no IPv6 addresses: no data, never NXDOMAIN", async () => {
  using four = new DnsLab(mesh(), { upstreams: [upstream] }, { ipv6: false });
  for (const name of ["dual.localhost", "ipv6.localhost", "headless"]) {
    const answer = await four.ask(name, "AAAA");
    expect(answer).toMatchObject({ rcode: "NOERROR", flag_aa: true, answers: [] });
  }
  expect((await four.ask("dual.localhost", "A")).answers).toHaveLength(1);
});

it("takes another cluster domain", async () => {
  const other = new TestMesh()
    .workload("client", ["10.0.0.1"])
    .service("web", ["10.96.0.1"], { hostname: "web.ns.svc.mesh.example" });
  using renamed = new DnsLab(other, { upstreams: [upstream] }, { clusterDomain: "mesh.example" });
  for (const name of ["web", "web.ns", "web.ns.svc", "web.ns.svc.mesh.example"]) {
    expect((await renamed.ask(name)).answers).toMatchObject([{ data: "10.96.0.1" }]);
  }
  expect((await renamed.ask("web.ns.svc.cluster.local")).rcode).toBe("NXDOMAIN");
});
