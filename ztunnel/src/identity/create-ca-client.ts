// Chooses where certificates come from.

import type { Clock } from "@ambit/common/process/clock.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { tlsOptions } from "@ambit/common/tls/tls-policy.ts";
import type { Config } from "../config.ts";
import type { CaClient } from "./ca-client.ts";
import { FakeCa } from "./fake-ca.ts";
import { IstioCa } from "./istio-ca.ts";

export function createCaClient(config: Config, clock: Clock, log: Logger): CaClient {
  if (config.fakeCa) {
    log.warn("FAKE_CA: certificates are signed by this process; never use this in production");
    return new FakeCa({
      folder: config.fakeCaFolder,
      trustDomain: config.trustDomain,
      ttlSeconds: config.secretTtlSeconds,
      clock,
    });
  }
  return new IstioCa({
    controlPlane: {
      address: config.caAddress,
      rootCa: config.caRootCa,
      token: config.authTokenFile,
      clusterId: config.clusterId,
      alternativeHostname: config.caAlternativeHostname,
      headers: config.caHeaders,
      tls: tlsOptions(config.tls),
    },
    ttlSeconds: config.secretTtlSeconds,
    impersonate: config.proxyMode === "shared",
    clock,
  });
}
