import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseIp } from "../net/ip.ts";
import { parseAuthority } from "./authority.ts";
import { type Baggage, encodeBaggage, parseBaggage } from "./baggage.ts";
import { encodeForwarded, parseForwardedHost } from "./forwarded.ts";
import { newTraceparent, parseTraceparent } from "./traceparent.ts";

const ip = (text: string) => parseIp(text)!;
/** What Kubernetes names may hold, and a little more. */
const word = fc.stringMatching(/^[A-Za-z0-9._/-]{1,40}$/);

describe("baggage", () => {
  it("writes Istio's keys in Istio's order, without the empty ones", () => {
    const baggage: Baggage = {
      clusterId: "Kubernetes",
      namespace: "shop",
      workloadKind: "cronjob",
      workloadName: "nightly",
      serviceName: "stock",
      revision: "v2",
      region: "eu-1",
      zone: "",
    };
    expect(encodeBaggage(baggage)).toBe(
      "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.cronjob.name=nightly," +
        "service.name=stock,service.version=v2,cloud.region=eu-1",
    );
    expect(encodeBaggage({})).toBe("");
  });

  it.each<[string, Baggage]>([
    ["", {}],
    [",,=,", {}],
    ["unknown=1,service.name=a", { serviceName: "a" }],
    [" service.name = a ", { serviceName: "a" }],
    ["service.name=", {}],
    ["service.name=a,service.name=b", { serviceName: "b" }],
    ["service.name=a=b", { serviceName: "a=b" }],
    ["k8s.pod.name=p", { workloadKind: "pod", workloadName: "p" }],
    ["k8s.job.name=j,k8s.deployment.name=d", { workloadKind: "deployment", workloadName: "d" }],
    ["k8s.statefulset.name=s", {}],
    ["__proto__=x,constructor=y", {}],
  ])("of %j says %j", (header, expected) => {
    expect(parseBaggage(header)).toEqual(expected);
  });

  it("says after parsing what was encoded", () => {
    const record = fc.record(
      {
        clusterId: word,
        namespace: word,
        workloadKind: fc.constantFrom("deployment", "cronjob", "pod", "job"),
        workloadName: word,
        serviceName: word,
        revision: word,
        region: word,
        zone: word,
      },
      { requiredKeys: ["workloadKind", "workloadName"] },
    );
    fc.assert(
      fc.property(record, (baggage) => {
        expect(parseBaggage(encodeBaggage(baggage))).toEqual(baggage);
      }),
    );
  });
});

describe("forwarded", () => {
  it("names the client, and the service when one was meant", () => {
    expect(encodeForwarded({ ip: ip("10.0.0.1"), port: 4000 })).toBe('for="10.0.0.1:4000"');
    expect(encodeForwarded({ ip: ip("::1"), port: 80 }, "a.b.svc")).toBe(
      'for="[::1]:80";host=a.b.svc',
    );
  });

  it.each([
    ['for="10.0.0.1:1";host=a.b', "a.b"],
    ['for="10.0.0.1:1";host="a.b";proto=http', "a.b"],
    ["HOST=a.b", "a.b"],
    ['for="10.0.0.1:1"', undefined],
    ["host=", undefined],
    ['host=""', undefined],
    ["host=a b", undefined],
    ["host=ä", undefined],
    ['host="', '"'],
    ["", undefined],
  ])("%j means host %s", (header, host) => {
    expect(parseForwardedHost(header)).toBe(host);
  });

  it("gives back the hostname that was encoded", () => {
    const port = fc.integer({ min: 0, max: 65_535 });
    fc.assert(
      fc.property(fc.domain(), port, (host, number) => {
        const header = encodeForwarded({ ip: ip("fd00::1"), port: number }, host);
        expect(parseForwardedHost(header)).toBe(host);
      }),
    );
  });
});

describe("an authority", () => {
  it.each([
    ["10.0.0.1:80", { kind: "address", ip: "10.0.0.1", port: 80 }],
    ["[fd00::1]:65535", { kind: "address", ip: "fd00::1", port: 65_535 }],
    ["[::ffff:10.0.0.1]:1", { kind: "address", ip: "10.0.0.1", port: 1 }],
    [
      "a.b.svc.cluster.local:443",
      { kind: "hostname", hostname: "a.b.svc.cluster.local", port: 443 },
    ],
    ["Upper.Case:1", { kind: "hostname", hostname: "upper.case", port: 1 }],
    [`${"a".repeat(253)}:1`, { kind: "hostname", hostname: "a".repeat(253), port: 1 }],
  ])("%s is understood", (text, expected) => {
    expect(parseAuthority(text)).toEqual(expected);
  });

  it.each([
    [""],
    ["10.0.0.1"],
    ["10.0.0.1:0"],
    ["10.0.0.1:65536"],
    ["10.0.0.1:+80"],
    ["10.0.0.1: 80"],
    [":80"],
    ["fd00::1:80"],
    ["[fd00::1]"],
    ["[fd00::1%eth0]:80"],
    ["user@host:80"],
    ["host/path:80"],
    ["-a:80"],
    ["a..b:80"],
    [`${"a".repeat(254)}:1`],
  ])("%j is refused", (text) => {
    expect(parseAuthority(text)).toBeUndefined();
  });

  it("of any IPv4 address and port is that address and port", () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.integer({ min: 1, max: 65_535 }), (address, port) => {
        expect(parseAuthority(`${address}:${port}`)).toEqual({
          kind: "address",
          ip: address,
          port,
        });
      }),
    );
  });
});

describe("traceparent", () => {
  const [trace, span] = ["1".repeat(32), "2".repeat(16)];

  it("that we make is one we understand, never sampled, never the same twice", () => {
    const header = newTraceparent();
    expect(parseTraceparent(header)?.flags).toBe("00");
    expect(newTraceparent()).not.toBe(header);
  });

  it.each([
    [`00-${trace}-${span}-00`, true],
    [`cc-${trace}-${span}-01`, true],
    [`ff-${trace}-${span}-00`, false],
    [`00-${"0".repeat(32)}-${span}-00`, false],
    [`00-${trace}-${"0".repeat(16)}-00`, false],
    [`00-${trace}-${span}-0`, false],
    [`00-${trace}-${span}-000`, false],
    [`00-${trace}_${span}-00`, false],
    [`00-${"A".repeat(32)}-${span}-00`, false],
    [`00-${"0".repeat(52)}`, false],
  ])("%s is valid: %s", (header, valid) => {
    expect(parseTraceparent(header) !== undefined).toBe(valid);
  });
});
