import { describe, expect, it } from "vitest";
import { parseResolvConf, readResolvConf } from "./resolv-conf.ts";

describe("resolv.conf", () => {
  it.each<[string, string, string[], string[]]>([
    [
      "as Kubernetes writes it",
      "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
      ["10.96.0.10"],
      ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"],
    ],
    ["several servers", "nameserver 1.1.1.1\nnameserver ::1\n", ["1.1.1.1", "::1"], []],
    [
      "more than three servers",
      "nameserver 1.1.1.1\n".repeat(5),
      ["1.1.1.1", "1.1.1.1", "1.1.1.1"],
      [],
    ],
    ["comments", "# nameserver 9.9.9.9\nnameserver 1.1.1.1 ; mine\n", ["1.1.1.1"], []],
    ["a later search replaces an earlier one", "search a b\nsearch C.d.\n", [], ["c.d"]],
    ["domain is a search list of one", "domain a.b c\n", [], ["a.b"]],
    ["lines that are none", "nameserver\nnameserver nine\nsearch\n\0\n", [], []],
  ])("%s", (_, text, nameservers, searchDomains) => {
    expect(parseResolvConf(text)).toEqual({ nameservers, searchDomains });
  });

  it("that is not there says nothing", () => {
    const nothing = { nameservers: [], searchDomains: [] };
    expect(readResolvConf("/nonexistent/resolv.conf")).toEqual(nothing);
  });
});
