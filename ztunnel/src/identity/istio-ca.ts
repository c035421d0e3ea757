// The CA client (ztunnel §5.1): a fresh CSR for every request, signed by the control plane over TLS.

import type { Client } from "@grpc/grpc-js";
import { create } from "@bufbuild/protobuf";
import {
  type IstioCertificateRequest,
  IstioCertificateRequestSchema,
  type IstioCertificateResponse,
  IstioCertificateService,
} from "@ambit/api/gen/istio/citadel_pb.ts";
import type { Clock } from "@ambit/common/process/clock.ts";
import { certificateFromChain, type WorkloadCertificate } from "@ambit/common/tls/certificate.ts";
import { createCsr } from "@ambit/common/tls/csr.ts";
import { type Identity, spiffeId } from "@ambit/common/tls/identity.ts";
import { callMetadata, channelTarget, type ControlPlane } from "@ambit/common/xds/control-plane.ts";
import { type ChannelTarget, createClient } from "@ambit/common/xds/grpc-channel.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { callUnary } from "@ambit/common/xds/grpc-service.ts";
import type { CaClient } from "./ca-client.ts";

/** A CA that does not answer must not hold one of the eight fetch slots for ever. */
const CALL_TIMEOUT_MS = 10_000;

export interface IstioCaOptions {
  readonly controlPlane: ControlPlane;
  readonly ttlSeconds: number;
  /** Shared mode asks on behalf of its pods; dedicated mode is its own workload. */
  readonly impersonate: boolean;
  readonly clock: Clock;
}

export class IstioCa implements CaClient {
  readonly #options: IstioCaOptions;
  #client: Client | undefined;
  /** What the channel trusts. */
  #rootPem: string | undefined;

  constructor(options: IstioCaOptions) {
    this.#options = options;
  }

  async fetch(identity: Identity): Promise<WorkloadCertificate> {
    const { csrPem, keyPem } = createCsr(identity);
    const { ttlSeconds, impersonate } = this.#options;
    const request = create(IstioCertificateRequestSchema, {
      csr: csrPem,
      validityDuration: BigInt(ttlSeconds),
      ...(impersonate && { metadata: { ImpersonatedIdentity: spiffeId(identity) } }),
    });
    const { certChain } = await this.#call(request);
    return certificateFromChain(identity, keyPem, certChain);
  }

  close(): void {
    this.#client?.close();
  }

  async #call(request: IstioCertificateRequest): Promise<IstioCertificateResponse> {
    const { controlPlane, clock } = this.#options;
    this.#client = this.#currentClient();
    try {
      return await callUnary(
        this.#client,
        IstioCertificateService.method.createCertificate,
        request,
        {
          metadata: callMetadata(controlPlane),
          deadlineMs: clock.nowMs() + CALL_TIMEOUT_MS,
        },
      );
    } catch (error) {
      this.#renewChannel();
      throw new Error(`CA at ${controlPlane.address}: ${errorMessage(error)}`, { cause: error });
    }
  }

  /** A channel that trusts the root as it is now; when that cannot be read, the one that there is. */
  #currentClient(): Client {
    let target: ChannelTarget;
    try {
      target = channelTarget(this.#options.controlPlane);
    } catch (error) {
      if (this.#client !== undefined) return this.#client;
      throw error;
    }
    if (this.#client !== undefined && target.rootPem === this.#rootPem) return this.#client;
    this.#renewChannel();
    this.#rootPem = target.rootPem;
    return createClient(target);
  }

  /** The next fetch connects anew. */
  #renewChannel(): void {
    this.#client?.close();
    this.#client = undefined;
  }
}
