import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { contentLength, requestFault, responseFault, trailersFault } from "./message-rules.ts";

/** `name=value` pairs. */
const fields = (...pairs: string[]) =>
  pairs.map((pair) => {
    const equals = pair.indexOf("=");
    return { name: pair.slice(0, equals), value: pair.slice(equals + 1) };
  });

const GET = [":method=GET", ":scheme=https", ":path=/"];
const CONNECT = [":method=CONNECT", ":authority=10.0.0.1:80"];

describe("a request", () => {
  it.each([
    ["a plain one", GET],
    ["pseudo-headers in any order", [":path=/", ":method=GET", ":authority=a", ":scheme=http"]],
    ["a CONNECT", CONNECT],
    ["a CONNECT without authority: its handler answers", [":method=CONNECT"]],
    ["te: trailers", [...GET, "te=trailers"]],
    ["an empty value", [...GET, "x-empty="]],
    ["a tab within a value", [...GET, "x-tab=a\tb"]],
  ])("%s is well-formed", (_, pairs) => {
    expect(requestFault(fields(...pairs))).toBeUndefined();
  });

  it.each([
    ["no method", [":scheme=https", ":path=/"], ":method is missing"],
    ["an empty method", [":method=", ":scheme=https", ":path=/"], ":method is missing"],
    ["no scheme", [":method=GET", ":path=/"], ":scheme is missing"],
    ["an empty path", [":method=GET", ":scheme=https", ":path="], ":path is missing"],
    ["a method twice", [...GET, ":method=GET"], ":method is unknown or appears twice"],
    ["a response's pseudo-header", [...GET, ":status=200"], ":status is unknown"],
    ["a pseudo-header after a field", [...GET, "a=b", ":authority=x"], ":authority has no place"],
    ["CONNECT with a path", [...CONNECT, ":path=/"], "CONNECT takes no :scheme and no :path"],
    ["CONNECT with a scheme", [...CONNECT, ":scheme=https"], "CONNECT takes no"],
    ["an upper-case name", [...GET, "X-Upper=1"], '"X-Upper" is not a header name'],
    ["an empty name", [...GET, "=1"], '"" is not a header name'],
    ["a colon in a name", [...GET, "a:b=1"], "is not a header name"],
    ["connection", [...GET, "connection=close"], "connection is of HTTP/1.1"],
    ["transfer-encoding", [...GET, "transfer-encoding=chunked"], "is of HTTP/1.1"],
    ["te: gzip", [...GET, "te=gzip"], "te may only say trailers"],
    ["CR in a value", [...GET, "a=x\ry"], "a holds a forbidden character"],
    ["LF in a value", [...GET, "a=x\ny"], "a holds a forbidden character"],
    ["NUL in a value", [...GET, "a=x\0y"], "a holds a forbidden character"],
    ["a leading blank", [...GET, "a= x"], "a holds a forbidden character"],
    ["a trailing tab", [...GET, "a=x\t"], "a holds a forbidden character"],
  ])("with %s is malformed, and says why", (_, pairs, reason) => {
    expect(requestFault(fields(...pairs))).toContain(reason);
  });

  it("never holds a line break or an upper-case name when it passes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (name, value) => {
        if (requestFault([...fields(...GET), { name, value }]) !== undefined) return;
        if (name.startsWith(":")) return;
        expect(name).toMatch(/^[!-9;-@[-~]+$/);
        expect(value).not.toMatch(/[\0\r\n]/);
      }),
    );
  });
});

describe("a response", () => {
  it.each([["200"], ["404"], ["100"]])("of status %s is well-formed", (status) => {
    expect(responseFault(fields(`:status=${status}`, "a=b"))).toBeUndefined();
  });

  it.each([
    ["no status", ["a=b"]],
    ["an empty list", []],
    ["a status of two digits", [":status=20"]],
    ["a status that is no number", [":status=2x0"]],
    ["a status twice", [":status=200", ":status=200"]],
    ["a request's pseudo-header", [":status=200", ":path=/"]],
  ])("with %s is malformed", (_, pairs) => {
    expect(responseFault(fields(...pairs))).toBeDefined();
  });
});

describe("trailers", () => {
  it("are regular fields only", () => {
    expect(trailersFault(fields("grpc-status=0"))).toBeUndefined();
    expect(trailersFault(fields(":status=200"))).toBeDefined();
  });
});

describe("content-length", () => {
  it.each([
    [[], undefined],
    [["content-length=0"], 0],
    [["content-length=999999999999999"], 999_999_999_999_999],
    [["content-length=1000000000000000"], "invalid"],
    [["content-length=1", "content-length=1"], "invalid"],
    [["content-length=+1"], "invalid"],
    [["content-length="], "invalid"],
    [["content-length=1, 1"], "invalid"],
  ])("of %j is %s", (pairs, expected) => {
    expect(contentLength(fields(...pairs))).toBe(expected);
  });
});
