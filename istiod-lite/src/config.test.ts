import { describe, expect, it } from "vitest";
import { parseConfig } from "./config.ts";

describe("the configuration", () => {
  it("has Istio's defaults", () => {
    expect(parseConfig({ MANIFESTS: "/etc/mesh" })).toMatchObject({
      manifests: ["/etc/mesh"],
      plaintextPort: 15010,
      securePort: 15012,
      httpPort: 8080,
      metricsPort: 15014,
      rootNamespace: "istio-system",
      trustDomain: "cluster.local",
      trustedNodeAccounts: ["istio-system/ztunnel"],
      debounceAfterMs: 100,
      debounceMaxMs: 10_000,
      pushesPerTurn: 100,
      streamAgeMs: 30 * 60_000,
      meshConfigName: "istio",
    });
  });

  it("takes lists and durations", () => {
    const config = parseConfig({
      MANIFESTS: "/a, /b,",
      PILOT_DEBOUNCE_AFTER: "20ms",
      ISTIOD_SAN: "172.30.0.2,istiod.mesh",
      JWKS_FILE: "/keys",
      TOKEN_ISSUER: "https://issuer",
      DEFAULT_WORKLOAD_CERT_TTL: "1h",
    });
    expect(config).toMatchObject({
      manifests: ["/a", "/b"],
      debounceAfterMs: 20,
      ttlDefaultSeconds: 3600,
      ttlSecondsMax: 90 * 86_400,
      extraSans: ["172.30.0.2", "istiod.mesh"],
    });
  });

  it.each([
    ["no manifests", {}, "MANIFESTS"],
    ["a throttle of nothing", { PILOT_PUSH_THROTTLE: "0" }, "PILOT_PUSH_THROTTLE"],
    ["a throttle that is none", { PILOT_PUSH_THROTTLE: "10001" }, "PILOT_PUSH_THROTTLE"],
    ["a port out of range", { XDS_PORT: "65536" }, "XDS_PORT"],
    ["a log level that is none", { LOG_LEVEL: "loud" }, "LOG_LEVEL"],
    ["keys without an issuer", { JWKS_FILE: "/keys" }, "TOKEN_ISSUER"],
    ["two kinds of CA", { CA_DIR: "/a", CACERTS_DIR: "/b" }, "CA_DIR"],
    ["an account without namespace", { CA_TRUSTED_NODE_ACCOUNTS: "z" }, "CA_TRUSTED_NODE_ACCOUNTS"],
    ["a default life above the maximum", { MAX_WORKLOAD_CERT_TTL: "1h" }, "DEFAULT_WORKLOAD"],
    ["a block of one address", { PILOT_IP_AUTOALLOCATE_IPV4_PREFIX: "10.0.0.1" }, "IPV4_PREFIX"],
    ["a maximum below the quiet time", { PILOT_DEBOUNCE_MAX: "10ms" }, "PILOT_DEBOUNCE_MAX"],
  ])("refuses %s", (_what, env, variable) => {
    expect(() =>
      parseConfig({ MANIFESTS: "/m", ...env, ...(variable === "MANIFESTS" && { MANIFESTS: "" }) }),
    ).toThrow(expect.objectContaining({ exitCode: 2, message: expect.stringContaining(variable) }));
  });

  it("reports every problem at once", () => {
    expect(() => parseConfig({ XDS_PORT: "x", HTTP_PORT: "y" })).toThrow(
      /XDS_PORT.*HTTP_PORT.*MANIFESTS/,
    );
  });
});
