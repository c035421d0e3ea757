import { describe, expect, it } from "vitest";
import { AppProtocol } from "@ambit/api/gen/istio/workload_pb.ts";
import { protocolOfEntry, protocolOfService } from "./app-protocol.ts";

const { UNKNOWN, HTTP11, HTTP2, GRPC, TCP, TLS } = AppProtocol;

describe("the protocol of a port", () => {
  it.each<[string | undefined, string | undefined, number, AppProtocol]>([
    [undefined, undefined, 80, UNKNOWN],
    ["http", undefined, 80, HTTP11],
    ["http-web", undefined, 80, HTTP11],
    ["HTTP2-web", undefined, 80, HTTP2],
    ["https", undefined, 443, TLS],
    ["tls-x", undefined, 443, TLS],
    ["tcp", undefined, 80, TCP],
    ["grpc-x", undefined, 80, GRPC],
    ["grpc-web-x", undefined, 80, UNKNOWN],
    ["web", undefined, 80, UNKNOWN],
    ["web", undefined, 3306, TCP],
    [undefined, undefined, 53, TCP],
    ["redis", undefined, 25, UNKNOWN],
    ["http", "grpc", 80, GRPC],
    ["http", "tcp-x", 80, TCP],
    ["http", "kubernetes.io/h2c", 80, HTTP2],
    ["http", "kubernetes.io/ws", 80, HTTP11],
    ["http", "kubernetes.io/wss", 80, TLS],
    ["kubernetes.io/h2c", undefined, 80, UNKNOWN],
    ["http", "example.com/own", 27_017, TCP],
  ])(
    "of a Service named %s, with appProtocol %s and number %d, is %d",
    (name, app, port, expected) => {
      expect(protocolOfService({ port, name, appProtocol: app })).toBe(expected);
    },
  );

  it.each([
    ["HTTP", HTTP11],
    ["HTTPS", TLS],
    ["GRPC-Web", UNKNOWN],
    ["MONGO", UNKNOWN],
    [undefined, UNKNOWN],
    ["http-web", UNKNOWN],
  ])("of a ServiceEntry as %s is %d", (text, expected) => {
    expect(protocolOfEntry(text)).toBe(expected);
  });
});
