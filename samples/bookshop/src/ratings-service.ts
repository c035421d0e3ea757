// The gRPC contract of `ratings`, with JSON messages: real gRPC framing without a code generator.

import type { ServiceDefinition } from "@grpc/grpc-js";

export interface RatingsRequest {
  readonly book: number;
}

export interface RatingsReply {
  readonly stars: Readonly<Record<string, number>>;
}

const encode = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const decode = (bytes: Buffer): unknown => JSON.parse(bytes.toString());

export const RATINGS: ServiceDefinition = {
  get: {
    path: "/bookshop.Ratings/Get",
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
};
