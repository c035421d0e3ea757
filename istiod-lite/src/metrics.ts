// istiod's metrics under the names its dashboards use (pilot_*, citadel_*). Implements the observers of
// pushing and of the delta server.

import type { ResourceEvent } from "@ambit/common/resources/source.ts";
import type { Family } from "@ambit/common/telemetry/exposition.ts";
import { Metrics } from "@ambit/common/telemetry/metrics.ts";
import type { ClientNode, DeltaObserver } from "@ambit/common/xds/delta-session.ts";
import {
  TYPE_ADDRESS,
  TYPE_AUTHORIZATION,
  type XdsChange,
} from "@ambit/common/xds/resource-type.ts";
import type { CertificateObserver } from "./ca/certificate-service.ts";
import type { PushObserver } from "./push/mesh-pusher.ts";

/** Istio's short names of types, as label values. */
const TYPE_LABEL = new Map([
  [TYPE_ADDRESS, "wads"],
  [TYPE_AUTHORIZATION, "wauth"],
]);

const SECONDS = [0.01, 0.1, 0.5, 1, 3, 5, 10, 20, 30];
const BYTES = [1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000];
/** A proxy's own word for its version; longer is not a version. */
const VERSION_LENGTH_MAX = 64;

export class IstiodMetrics implements DeltaObserver, PushObserver {
  readonly #metrics = new Metrics();
  readonly #versions = new Map<string, number>();

  readonly #xds = this.#metrics.gauge(
    "pilot_xds",
    "Number of endpoints connected to this pilot using XDS.",
    ["version"],
  );
  readonly #pushes = this.#metrics.counter("pilot_xds_pushes", "Number of XDS pushes.", ["type"]);
  readonly #pushTime = this.#metrics.histogram(
    "pilot_xds_push_time",
    "Total time in seconds Pilot takes to push lds, rds, cds and eds.",
    SECONDS,
    ["type"],
  );
  readonly #configSize = this.#metrics.histogram(
    "pilot_xds_config_size_bytes",
    "Distribution of configuration sizes pushed to clients",
    BYTES,
    ["type"],
  );
  readonly #rejects = this.#metrics.counter(
    "pilot_total_xds_rejects",
    "Total number of XDS responses from pilot rejected by proxy.",
    ["type"],
  );
  readonly #expiredNonce = this.#metrics.counter(
    "pilot_xds_expired_nonce",
    "Total number of XDS requests with an expired nonce.",
    ["type"],
  );
  readonly #writeTimeout = this.#metrics.counter(
    "pilot_xds_write_timeout",
    "Pilot XDS response write timeouts.",
  );
  readonly #convergence = this.#metrics.histogram(
    "pilot_proxy_convergence_time",
    "Delay in seconds between config change and a proxy receiving all required configuration.",
    SECONDS,
  );
  readonly #debounce = this.#metrics.histogram(
    "pilot_debounce_time",
    "Delay in seconds between the first config entering debouncing and its push.",
    SECONDS,
  );
  readonly #pushContext = this.#metrics.histogram(
    "pilot_pushcontext_init_seconds",
    "Total time in seconds Pilot takes to init pushContext.",
    SECONDS,
  );
  readonly #triggers = this.#metrics.counter(
    "pilot_push_triggers",
    "Total number of times a push was triggered, labeled by reason for the push.",
    ["type"],
  );
  readonly #inbound = this.#metrics.counter(
    "pilot_inbound_updates",
    "Total number of updates received by pilot.",
    ["type"],
  );
  readonly #configEvents = this.#metrics.counter(
    "pilot_k8s_cfg_events",
    "Events from k8s config.",
    ["type", "event"],
  );
  readonly #rejectedConfigs = this.#metrics.gauge(
    "pilot_total_rejected_configs",
    "Total number of configs that Pilot had to reject or ignore.",
  );
  readonly #startup = this.#metrics.gauge(
    "startup_duration_seconds",
    "The time from the process starting to being marked ready.",
  );
  readonly #csrs = this.#metrics.counter(
    "citadel_server_csr_count",
    "The number of CSRs received by Citadel server.",
  );
  readonly #issued = this.#metrics.counter(
    "citadel_server_success_cert_issuance_count",
    "The number of certificates issuances that have succeeded.",
  );
  readonly #csrErrors = this.#metrics.counter(
    "citadel_server_csr_parsing_err_count",
    "The number of errors occurred when parsing the CSR.",
  );
  readonly #authenticationFailures = this.#metrics.counter(
    "citadel_server_authentication_failure_count",
    "The number of authentication failures.",
  );

  /** What the certificate service reports to. */
  readonly certificates: CertificateObserver = {
    onRequest: () => this.#csrs.inc(),
    onAuthenticationFailure: () => this.#authenticationFailures.inc(),
    onCsrError: () => this.#csrErrors.inc(),
    onIssued: () => this.#issued.inc(),
  };

  constructor(version: string) {
    this.#metrics
      .gauge("istio_build", "Istio component build info", ["component", "tag"])
      .labels("pilot", version)
      .set(1);
    this.#metrics
      .gauge("pilot_info", "Pilot version and build information.", ["version"])
      .labels(version)
      .set(1);
    this.#metrics.gauge(
      "istiod_uptime_seconds",
      "Current istiod server uptime in seconds",
      [],
      (g) => g.set(process.uptime()),
    );
    this.#metrics.gauge(
      "process_resident_memory_bytes",
      "Resident memory size in bytes.",
      [],
      (g) => g.set(process.memoryUsage.rss()),
    );
    this.#metrics.gauge("process_cpu_seconds_total", "Total user and system CPU time.", [], (g) => {
      const { user, system } = process.cpuUsage();
      g.set((user + system) / 1e6);
    });
  }

  /** Every family that has samples. */
  families(): Promise<Family[]> {
    return this.#metrics.families();
  }

  /** A gauge whose value another part knows. */
  watch(name: string, help: string, value: () => number): void {
    this.#metrics.gauge(name, help, [], (gauge) => gauge.set(value()));
  }

  /** The process is ready. */
  started(): void {
    this.#startup.set(process.uptime());
  }

  connected(node: ClientNode): void {
    this.#countVersion(node, 1);
  }

  disconnected(node: ClientNode): void {
    this.#countVersion(node, -1);
  }

  sent(typeUrl: string, { bytes }: { bytes: number }): void {
    const type = labelOf(typeUrl);
    this.#pushes.inc({ type });
    this.#configSize.observe({ type }, bytes);
  }

  converged(typeUrl: string, afterMs: number): void {
    this.#convergence.observe(afterMs / 1000);
    this.#pushTime.observe({ type: labelOf(typeUrl) }, afterMs / 1000);
  }

  rejected(typeUrl: string): void {
    this.#rejects.inc({ type: labelOf(typeUrl) });
  }

  expiredNonce(typeUrl: string): void {
    this.#expiredNonce.inc({ type: labelOf(typeUrl) });
  }

  timedOut(): void {
    this.#writeTimeout.inc();
  }

  event(event: ResourceEvent): void {
    const type = event.type === "upsert" ? event.resource.kind : event.key.kind;
    this.#inbound.inc({ type: "config" });
    this.#configEvents.inc({ type, event: event.type === "upsert" ? "update" : "delete" });
  }

  debounced(waitedMs: number): void {
    this.#debounce.observe(waitedMs / 1000);
  }

  flushed(changes: readonly XdsChange[], tookMs: number): void {
    this.#pushContext.observe(tookMs / 1000);
    for (const { typeUrl } of changes) this.#triggers.inc({ type: labelOf(typeUrl) });
  }

  problems(count: number): void {
    this.#rejectedConfigs.set(count);
  }

  #countVersion({ metadata }: ClientNode, by: number): void {
    const value = metadata["ISTIO_VERSION"];
    const known = typeof value === "string" && value !== "" && value.length <= VERSION_LENGTH_MAX;
    const version = known ? value : "unknown";
    const count = (this.#versions.get(version) ?? 0) + by;
    if (count > 0) {
      this.#versions.set(version, count);
      this.#xds.set({ version }, count);
    } else {
      this.#versions.delete(version);
      this.#xds.remove({ version });
    }
  }
}

function labelOf(typeUrl: string): string {
  return TYPE_LABEL.get(typeUrl) ?? "other";
}
