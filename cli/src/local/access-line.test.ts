import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Log, raw } from "@ambit/common/telemetry/log.ts";
import { parseAccessLine } from "./access-line.ts";

/** A line as ztunnel's log writes it. */
function line(message: string, fields: Record<string, string>, scope = "access"): string {
  let text = "";
  new Log({ write: (written) => (text = written) }).scope(scope).info(message, fields);
  return text.trimEnd();
}

describe("an access line", () => {
  it("says who talked to whom, how, and why it failed", () => {
    const text = line("connection complete", {
      "src.workload": "client",
      "src.identity": "spiffe://td/ns/ns/sa/client",
      "dst.service": "web.ns.svc.cluster.local",
      "dst.workload": "web-1",
      "dst.identity": "spiffe://td/ns/ns/sa/web",
      direction: "outbound",
      error: 'denied by "p"',
      reason: "POLICY_DENIED",
      path: "hbone",
    });
    expect(parseAccessLine(text)).toEqual({
      direction: "outbound",
      path: "hbone",
      source: "client",
      sourceIdentity: "spiffe://td/ns/ns/sa/client",
      destination: "web.ns.svc.cluster.local",
      destinationIdentity: "spiffe://td/ns/ns/sa/web",
      error: 'denied by "p"',
      reason: "POLICY_DENIED",
    });
  });

  it.each([
    ["a quote that is never closed", 'src.addr=1.2.3.4:5 src.workload="a'],
    ["a workload without a name", 'src.addr=1.2.3.4:5 src.workload=""'],
  ])("keeps a source in spite of %s", (_what, fields) => {
    const text = ["t", "info", "access", "connection complete", fields].join("\t");
    expect(parseAccessLine(text)?.source).toMatch(/^(a|1\.2\.3\.4:5)$/);
  });

  it("names an end by its address when no workload is known", () => {
    let text = "";
    new Log({ write: (written) => (text = written) })
      .scope("access")
      .warn("connection failed", { "src.addr": raw("10.0.0.1:4000"), direction: "inbound" });
    expect(parseAccessLine(text)).toMatchObject({
      source: "10.0.0.1:4000",
      destination: "unknown",
    });
  });

  it.each([
    ["another scope's", line("connection complete", {}, "proxy")],
    ["a connection's that opens", line("connection opened", {})],
    ["empty", ""],
    ["free text", "hello\tworld"],
  ])("is not one that is %s", (_, text) => {
    expect(parseAccessLine(text)).toBeUndefined();
  });

  it("gives back any text that the log quoted", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string(), (error, reason) => {
        const text = line("connection complete", { error, reason, path: "tcp" });
        expect(parseAccessLine(text)).toMatchObject({ error, reason, path: "tcp" });
      }),
    );
  });
});
