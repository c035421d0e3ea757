import { describe, expect, it } from "vitest";
import { parseConfig } from "./config.ts";

const REQUIRED = { NODE_NAME: "node-1", MANIFESTS: "/m" };

describe("configuration", () => {
  it("has Istio's defaults", () => {
    expect(parseConfig(REQUIRED)).toMatchObject({
      zdsPath: "/var/run/ztunnel/ztunnel.sock",
      dnsCapture: true,
      ipv6: true,
      excludedNamespaces: new Set(["kube-system"]),
      metricsPort: 15_014,
      healthPort: 8_000,
      probeUid: undefined,
      reconcileRulesAtStart: true,
    });
  });

  it("reads lists, users and both names of the ZDS socket", () => {
    const config = parseConfig({
      ...REQUIRED,
      MANIFESTS: "/a, /b",
      EXCLUDE_NAMESPACES: "x,y",
      PROBE_UID: "0",
      ZTUNNEL_UDS_ADDRESS: "/z",
    });
    expect(config.manifestFolders).toEqual(["/a", "/b"]);
    expect(config.excludedNamespaces).toEqual(new Set(["x", "y"]));
    expect([config.probeUid, config.zdsPath]).toEqual([0, "/z"]);
  });

  it("names every problem at once", () => {
    const bad = { PROBE_UID: "root", REDIRECTION: "magic", AMBIENT_ENABLEMENT_SELECTOR: "{" };
    expect(() => parseConfig(bad)).toThrow(
      /NODE_NAME.*MANIFESTS.*PROBE_UID.*AMBIENT_ENABLEMENT_SELECTOR.*REDIRECTION/,
    );
  });
});
