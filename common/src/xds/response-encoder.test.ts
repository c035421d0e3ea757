import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, it } from "vitest";
import { DeltaDiscoveryResponseSchema } from "@ambit/api/gen/envoy/discovery_pb.ts";
import { encodeResponse } from "./response-encoder.ts";
import { TYPE_ADDRESS } from "./resource-type.ts";

const resources = fc.array(
  fc.record({
    name: fc.string(),
    version: fc.string(),
    aliases: fc.array(fc.string(), { maxLength: 3 }),
    value: fc.uint8Array(),
  }),
);

it("responses assembled from shared parts decode to what they were made of", () => {
  fc.assert(
    fc.property(resources, fc.array(fc.string()), fc.string(), (upserts, removed, nonce) => {
      const content = { typeUrl: TYPE_ADDRESS, nonce, upserts, removed };
      for (const bytes of [encodeResponse(content), encodeResponse(content)]) {
        const decoded = fromBinary(DeltaDiscoveryResponseSchema, bytes);
        expect(decoded).toMatchObject({ typeUrl: TYPE_ADDRESS, nonce, removedResources: removed });
        expect(
          decoded.resources.map(({ name, version, aliases, resource }) => ({
            name,
            version,
            aliases,
            value: Uint8Array.from(resource!.value),
          })),
        ).toEqual(upserts.map((each) => ({ ...each, value: Uint8Array.from(each.value) })));
      }
    }),
  );
});
