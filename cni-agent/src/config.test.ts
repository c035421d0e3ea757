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

  it("reads Istio's settings of iptables and repair, and how long leaving may take", () => {
    const defaults = parseConfig({ ...REQUIRED, FORCE_IPTABLES_BINARY: "" });
    expect([defaults.iptablesKind, defaults.unenrolmentDrainMs]).toEqual([undefined, 5_000]);
    expect(defaults.repair).toEqual({
      deletePods: false,
      labelPods: false,
      labelKey: "cni.istio.io/uninitialized",
      labelValue: "true",
    });
    const config = parseConfig({
      ...REQUIRED,
      FORCE_IPTABLES_BINARY: "legacy",
      REPAIR_DELETE_PODS: "true",
      UNENROLMENT_DRAIN: "1h",
    });
    expect([config.iptablesKind, config.repair.deletePods]).toEqual(["legacy", true]);
    const late = { ...REQUIRED, UNENROLMENT_DRAIN: "61m" };
    expect(() => parseConfig(late)).toThrow("UNENROLMENT_DRAIN: at most 1h");
  });

  it("names every problem at once", () => {
    const bad = { PROBE_UID: "root", REDIRECTION: "magic", AMBIENT_ENABLEMENT_SELECTOR: "{" };
    expect(() => parseConfig(bad)).toThrow(
      /NODE_NAME.*MANIFESTS.*PROBE_UID.*AMBIENT_ENABLEMENT_SELECTOR.*REDIRECTION/,
    );
  });
});
