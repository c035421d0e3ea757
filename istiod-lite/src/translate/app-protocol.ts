// What an application speaks on a port, as its Service or ServiceEntry says it (Istio's protocol selection).

import { AppProtocol } from "@ambit/api/gen/istio/workload_pb.ts";

interface ServicePort {
  readonly port: number;
  readonly name?: string | undefined;
  readonly appProtocol?: string | undefined;
}

/** Kubernetes' own words; any other appProtocol reads like the name of a port. */
const STANDARD = new Map<string, AppProtocol>([
  ["kubernetes.io/h2c", AppProtocol.HTTP2],
  ["kubernetes.io/ws", AppProtocol.HTTP11],
  ["kubernetes.io/wss", AppProtocol.TLS],
]);

const NAMED = new Map<string, AppProtocol>([
  ["http", AppProtocol.HTTP11],
  ["http2", AppProtocol.HTTP2],
  ["grpc", AppProtocol.GRPC],
  ["tcp", AppProtocol.TCP],
  ["tls", AppProtocol.TLS],
  ["https", AppProtocol.TLS],
]);

/** Words that are known, but have none of the wire's: they are not taken for TCP either. */
const OTHERS = new Set(["udp", "grpc-web", "http_proxy", "mongo", "redis", "mysql"]);

/** SMTP, DNS, MySQL and MongoDB: there the server speaks first, or it is no stream of requests. */
const TCP_PORTS = new Set([25, 53, 3306, 27_017]);

/** By appProtocol, else by the prefix of the port's name, else by a well-known number. */
export function protocolOfService({ port, name = "", appProtocol }: ServicePort): AppProtocol {
  const standard = appProtocol === undefined ? undefined : STANDARD.get(appProtocol);
  if (standard !== undefined) return standard;
  const text = (appProtocol ?? name).toLowerCase();
  const prefix = text.startsWith("grpc-web") ? "grpc-web" : (text.split("-")[0] ?? "");
  if (OTHERS.has(prefix)) return AppProtocol.UNKNOWN;
  return NAMED.get(prefix) ?? (TCP_PORTS.has(port) ? AppProtocol.TCP : AppProtocol.UNKNOWN);
}

/** A ServiceEntry names it in full. */
export function protocolOfEntry(protocol = ""): AppProtocol {
  return NAMED.get(protocol.toLowerCase()) ?? AppProtocol.UNKNOWN;
}
