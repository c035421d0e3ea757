// Where certificates come from. The secret manager knows only this interface.

import type { WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import type { Identity } from "@ambit/common/tls/identity.ts";

export interface CaClient {
  /** A fresh key and certificate for `identity`. Rejects with the CA's reason. */
  fetch(identity: Identity): Promise<WorkloadCertificate>;
  close(): void;
}
