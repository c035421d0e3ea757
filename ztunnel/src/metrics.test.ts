import { describe, expect, it } from "vitest";
import { renderOpenMetrics } from "@ambit/common/telemetry/exposition.ts";
import { parseConfig } from "./config.ts";
import { MainMetrics } from "./metrics.ts";

function newMetrics(env: Record<string, string> = {}): MainMetrics {
  return new MainMetrics(parseConfig(env, "/nonexistent"), () => ({
    pods: { active: 2, pending: 1, started: 4, stopped: 1 },
    threadUtilization: new Map([["main", 0.5]]),
  }));
}

describe("the main thread's metrics", () => {
  it("count pods under ztunnel's names", async () => {
    const text = renderOpenMetrics(await newMetrics().collect());
    expect(text).toContain("# TYPE workload_manager_active_proxy_count gauge");
    expect(text).toContain("\nworkload_manager_active_proxy_count 2\n");
    expect(text).toContain("\nworkload_manager_pending_proxy_count 1\n");
    expect(text).toContain("# TYPE workload_manager_proxies_started counter");
    expect(text).toContain("\nworkload_manager_proxies_started_total 4\n");
    expect(text).toContain("\nworkload_manager_proxies_stopped_total 1\n");
  });

  it("all say that they are unstable", async () => {
    const metrics = newMetrics();
    metrics.xdsMessages.inc({ url: "x" });
    metrics.xdsBytes.inc({ url: "x" }, 10);
    metrics.xdsTerminations.inc({ reason: "Error" });
    const families = await metrics.collect();
    expect(families.length).toBeGreaterThan(10);
    for (const { name, help } of families) expect(help, name).toContain("(unstable)");
  });

  it("name the build by the version the control plane is told", async () => {
    const text = renderOpenMetrics(
      await newMetrics({ ISTIO_META_ISTIO_VERSION: "1.30.0" }).collect(),
    );
    expect(text).toContain('istio_build{component="ztunnel",tag="1.30.0"} 1');
  });

  it("omit families without samples", async () => {
    expect(renderOpenMetrics(await newMetrics().collect())).not.toContain("istio_xds_message");
  });
});
