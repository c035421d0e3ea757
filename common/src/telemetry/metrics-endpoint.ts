// GET /metrics: content negotiation and compression around metrics-text.ts.

import { promisify } from "node:util";
import { brotliCompress, constants, gzip, zstdCompress } from "node:zlib";
import type { AdminResponse, AdminRoute } from "../process/admin-server.ts";
import type { Metrics } from "./metrics.ts";
import { type MetricsFormat, renderMetrics } from "./metrics-text.ts";

const OPENMETRICS = "application/openmetrics-text;charset=utf-8;version=1.0.0";
const PLAIN = "text/plain; charset=utf-8";
const PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8";

/** Below this, compressing costs more than it saves. */
const COMPRESS_BYTES_MIN = 1024;
/** Brotli's default (11) takes seconds on a large page; 4 is near gzip's cost. */
const BROTLI_QUALITY = 4;

type Encoder = (body: string) => Promise<Uint8Array>;

const brotli = promisify(brotliCompress);
const ENCODERS: readonly { readonly name: string; readonly encode: Encoder }[] = [
  { name: "zstd", encode: promisify(zstdCompress) },
  {
    name: "br",
    encode: (body) =>
      brotli(body, { params: { [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY } }),
  },
  { name: "gzip", encode: promisify<string, Uint8Array>(gzip) },
];

/**
 * The metrics route. ztunnel's body is OpenMetrics whatever the Accept header says, only its content
 * type varies; istiod's is the Prometheus format, whose counter names its dashboards rely on.
 */
export function metricsRoute(
  metrics: Metrics,
  format: MetricsFormat,
  path = "/metrics",
): AdminRoute {
  return {
    method: "GET",
    path,
    handle: async ({ headers }) => {
      const body = renderMetrics(await metrics.families(), format);
      const type = contentType(format, headers.accept);
      return compressed(body, type, headers["accept-encoding"]);
    },
  };
}

function contentType(format: MetricsFormat, accept: string | undefined): string {
  if (format === "prometheus") return PROMETHEUS;
  return accept?.includes("openmetrics") === true ? OPENMETRICS : PLAIN;
}

async function compressed(
  body: string,
  type: string,
  acceptEncoding: string | string[] | undefined,
): Promise<AdminResponse> {
  const accepted = acceptedEncodings(String(acceptEncoding ?? ""));
  const encoder = ENCODERS.find(({ name }) => accepted.has(name));
  const headers = { "content-type": type, vary: "accept-encoding" };
  if (encoder === undefined || body.length < COMPRESS_BYTES_MIN) {
    return { status: 200, body, headers };
  }
  const encoded = await encoder.encode(body);
  return { status: 200, body: encoded, headers: { ...headers, "content-encoding": encoder.name } };
}

/** Names in an Accept-Encoding header, without those refused by q=0. */
function acceptedEncodings(header: string): ReadonlySet<string> {
  const names = header.split(",").flatMap((part) => {
    const [name = "", ...parameters] = part.split(";").map((text) => text.trim().toLowerCase());
    return parameters.some((text) => /^q=0(\.0*)?$/.test(text)) ? [] : [name];
  });
  return new Set(names);
}
