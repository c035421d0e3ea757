// The proxies of the scale bench, in a process of their own: streams that acknowledge and count, without
// decoding the resources, so that they cost the machine as little as they can.

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { create, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
} from "@ambit/api/gen/envoy/discovery_pb.ts";
import { ZTUNNEL_TYPES } from "@ambit/common/xds/resource-type.ts";

const METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const MESSAGE_BYTES_MAX = 200 * 1024 * 1024;

/** One response, as far as it is looked at. */
export interface Counted {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly resources: number;
  readonly removed: number;
  readonly bytes: number;
}

/** Field numbers: DeltaDiscoveryResponse in api/proto/envoy/discovery.proto. */
const FIELD = { resources: 2, typeUrl: 4, nonce: 5, removed: 6 } as const;

function count(bytes: Buffer): Counted {
  const reader = new BinaryReader(bytes);
  let [typeUrl, nonce, resources, removed] = ["", "", 0, 0];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === FIELD.typeUrl) typeUrl = reader.string();
    else if (field === FIELD.nonce) nonce = reader.string();
    else {
      if (field === FIELD.resources) resources++;
      if (field === FIELD.removed) removed++;
      reader.skip(wireType, field);
    }
  }
  return { typeUrl, nonce, resources, removed, bytes: bytes.length };
}

/** Opens proxy `i`'s stream for all types, and tells of every response until it is closed. */
export function openThinClient(
  address: string,
  i: number,
  onResponse: (response: Counted) => void,
): { close(): void } {
  const client = new Client(address, credentials.createInsecure(), {
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    "grpc.use_local_subchannel_pool": 1,
  });
  const stream = client.makeBidiStreamRequest(
    METHOD,
    (request: DeltaDiscoveryRequest) => Buffer.from(toBinary(DeltaDiscoveryRequestSchema, request)),
    count,
    new Metadata(),
  );
  stream.on("error", () => undefined);
  stream.on("data", (response: Counted) => {
    const { typeUrl, nonce: responseNonce } = response;
    stream.write(create(DeltaDiscoveryRequestSchema, { typeUrl, responseNonce }));
    onResponse(response);
  });
  const id = `ztunnel~10.0.0.${i}~ztunnel-${i}.istio-system~istio-system.svc.cluster.local`;
  for (const typeUrl of ZTUNNEL_TYPES) {
    stream.write(create(DeltaDiscoveryRequestSchema, { typeUrl, node: { id } }));
  }
  return {
    close: () => {
      stream.cancel();
      client.close();
    },
  };
}
