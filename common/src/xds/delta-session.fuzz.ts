// A session fed with arbitrary requests, as any peer can send them to the plaintext port: it may refuse
// them, but must not throw, nor send while a response is unacknowledged.

import { EventEmitter } from "node:events";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
} from "@ambit/api/gen/envoy/discovery_pb.ts";
import { assert } from "../process/assert.ts";
import { FakeClock } from "../testing/fake-clock.ts";
import { Log } from "../telemetry/log.ts";
import { type DeltaObserver, DeltaSession, type ServerStream } from "./delta-session.ts";
import { UNACKNOWLEDGED_BYTES_MAX } from "./limits.ts";
import { ResourceStore } from "./resource-store.ts";
import { contentVersion, TYPE_ADDRESS, ZTUNNEL_TYPES } from "./resource-type.ts";
import { SendBudget } from "./send-budget.ts";

export const name = "xds-delta-session";

const NODE = { id: "ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local" };
const LOG = new Log({ level: "off" }).scope("fuzz");
const SILENT: DeltaObserver = {
  connected: () => undefined,
  disconnected: () => undefined,
  sent: () => undefined,
  converged: () => undefined,
  rejected: () => undefined,
  expiredNonce: () => undefined,
  timedOut: () => undefined,
};

export function corpus(): Uint8Array[] {
  const request = (init: Parameters<typeof create<typeof DeltaDiscoveryRequestSchema>>[1]) =>
    toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, init));
  return [
    request({ node: NODE, typeUrl: TYPE_ADDRESS }),
    request({ typeUrl: TYPE_ADDRESS, responseNonce: "s-1", resourceNamesSubscribe: ["*", "a"] }),
    request({ typeUrl: TYPE_ADDRESS, errorDetail: { message: "no" }, responseNonce: "s-1" }),
    request({
      typeUrl: TYPE_ADDRESS,
      resourceNamesUnsubscribe: ["*"],
      initialResourceVersions: { a: "1" },
    }),
  ];
}

/** Records what is sent; answers nothing. */
class RecordingStream extends EventEmitter {
  readonly unacknowledged = new Map<string, string>();
  ended = false;

  write(bytes: Buffer): boolean {
    const { typeUrl, nonce } = fromBinary(DeltaDiscoveryResponseSchema, bytes);
    assert(!this.ended, "nothing is sent after the end");
    assert(!this.unacknowledged.has(typeUrl), "one response of a type is in flight");
    this.unacknowledged.set(typeUrl, nonce);
    return true;
  }

  end(): void {
    this.ended = true;
  }
}

export function fuzz(data: Uint8Array): void {
  let request: DeltaDiscoveryRequest;
  try {
    request = fromBinary(DeltaDiscoveryRequestSchema, data);
  } catch {
    return;
  }
  const store = new ResourceStore(ZTUNNEL_TYPES);
  const recording = new RecordingStream();
  recording.on("error", () => recording.end());
  const session = new DeltaSession({
    id: "s",
    stream: recording as unknown as ServerStream,
    store,
    budget: new SendBudget(UNACKNOWLEDGED_BYTES_MAX),
    checkNode: () => undefined,
    clock: new FakeClock(),
    log: LOG,
    observer: SILENT,
    onProgress: () => undefined,
  });
  store.listen((change) => void (session.noteChange(change) && session.push()));
  session.onRequest(create(DeltaDiscoveryRequestSchema, { node: NODE, typeUrl: TYPE_ADDRESS }));
  for (const text of ["1", "2", "3"]) {
    const value = new TextEncoder().encode(text);
    const upserts = [{ name: "a", version: contentVersion(value), aliases: ["b"], value }];
    store.apply({ typeUrl: TYPE_ADDRESS, upserts, removed: [] });
    const { typeUrl, responseNonce } = request;
    if (recording.unacknowledged.get(typeUrl) === responseNonce) {
      recording.unacknowledged.delete(typeUrl);
    }
    session.onRequest(request);
  }
}
