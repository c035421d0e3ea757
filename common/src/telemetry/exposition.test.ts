import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { chooseEncoding } from "./content-encoding.ts";
import { type Family, mergeFamilies, metricsReply, renderOpenMetrics } from "./exposition.ts";

const counter = (name: string, values: Family["values"]): Family => ({
  name,
  help: "Help",
  type: "counter",
  values,
});

const TEXT = `# HELP a Help.
# TYPE a counter
a_total{x="1"} 2
# EOF
`;
const A = counter("a_total", [{ labels: { x: "1" }, value: 2 }]);

describe("OpenMetrics text", () => {
  it("names a counter's family without _total and its samples with it", () => {
    expect(renderOpenMetrics([A])).toBe(TEXT);
    expect(renderOpenMetrics([{ ...A, name: "a" }])).toBe(TEXT);
  });

  it("leaves out families without samples but always ends", () => {
    expect(renderOpenMetrics([counter("empty", [])])).toBe("# EOF\n");
  });

  it("escapes label values", () => {
    const values = [{ labels: { x: 'a"b\\c\nd' }, value: 1 }];
    expect(renderOpenMetrics([counter("a", values)])).toContain('{x="a\\"b\\\\c\\nd"} 1');
  });

  it("keeps a histogram's sample names", () => {
    const family: Family = {
      name: "h",
      help: "Help.",
      type: "histogram",
      values: [
        { metricName: "h_bucket", labels: { le: "+Inf" }, value: 1 },
        { metricName: "h_sum", labels: {}, value: 0.5 },
        { metricName: "h_count", labels: {}, value: 1 },
      ],
    };
    expect(renderOpenMetrics([family])).toBe(
      '# HELP h Help.\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 0.5\nh_count 1\n# EOF\n',
    );
  });
});

describe("merging the workers' families", () => {
  it("sums samples of the same labels and keeps the others", () => {
    const other = counter("a_total", [
      { labels: { x: "1" }, value: 3 },
      { labels: { x: "2" }, value: 4 },
    ]);
    expect(mergeFamilies([[A], [other]])).toEqual([
      counter("a_total", [
        { labels: { x: "1" }, value: 5 },
        { labels: { x: "2" }, value: 4 },
      ]),
    ]);
  });
});

/** Accept-Encoding, what is chosen. */
const ENCODINGS: readonly [string, string | undefined][] = [
  ["", undefined],
  ["identity", undefined],
  ["gzip", "gzip"],
  ["gzip, br, zstd", "zstd"],
  ["GZIP;q=0.8, br;q=0.9", "br"],
  ["gzip;q=0", undefined],
  ["gzip;q=0, *", "zstd"],
  ["deflate", undefined],
  ["br;q=nonsense", undefined],
];

describe("a scrape's reply", () => {
  it.each(ENCODINGS)("to Accept-Encoding %j is encoded as %s", (accept, expected) => {
    expect(chooseEncoding(accept)).toBe(expected);
  });

  it.each([
    ["gzip", gunzipSync],
    ["br", brotliDecompressSync],
    ["zstd", zstdDecompressSync],
  ])("in %s unpacks to the text", async (encoding, unpack) => {
    const reply = await metricsReply([A], { headers: { "accept-encoding": encoding } });
    expect(reply.headers?.["content-encoding"]).toBe(encoding);
    expect(unpack(reply.body as Buffer).toString()).toBe(TEXT);
  });

  it("has the content type the scraper asked for", async () => {
    const typeFor = async (accept: string) =>
      (await metricsReply([A], { headers: { accept } })).headers?.["content-type"];
    expect(await typeFor("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")).toBe(
      "application/openmetrics-text;charset=utf-8;version=1.0.0",
    );
    expect(await typeFor("*/*")).toBe("text/plain; charset=utf-8");
  });
});
