import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AMBIT, Lab } from "./lab.ts";
import { SHOP } from "./shop.ts";

const lab = new Lab();

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

describe("mistakes on the command line", () => {
  it.each<[string, string[], number, RegExp]>([
    ["a second up", ["local", "up", "--sample", "bookshop", "--detach"], 1, /already running/],
    ["an unknown command", ["local", "dance"], 2, /dance/],
    ["an unknown option", ["local", "status", "--colour"], 2, /--colour/],
    ["an unknown sample", ["local", "up", "--sample", "zoo"], 2, /zoo.*bookshop/],
    ["a redirection that does not exist", ["local", "up", "--redirection", "magic"], 2, /magic/],
    ["a kind that is not known", ["local", "get", "gadget"], 2, /gadget/],
    ["a label without a value", ["local", "label", "pod", "far", "x"], 2, /KEY=VALUE/],
    ["a file that is not there", ["local", "apply", "-f", "/nonexistent.yaml"], 1, /nonexistent/],
    ["a pod that is not there", ["local", "exec", "ghost.shop", "--", "true"], 1, /ghost/],
    ["a node that is not there", ["ztunnel", "workloads", "--node", "node-9"], 1, /node-9/],
    ["an explain of nobody", ["explain", "ghost.shop", "far.shop:80"], 1, /ghost/],
  ])("%s: one clear sentence", async (_, args, code, text) => {
    const { code: found, stderr } = await lab.ambit(...args);
    expect({ code: found, lines: stderr.trim().split("\n") }).toEqual({
      code,
      lines: [expect.stringMatching(text)],
    });
  });

  it("without a mesh say how to start one", async () => {
    const nowhere = new Lab();
    const { code, stderr } = await nowhere.ambit("local", "status");
    await nowhere.down();
    expect({ code, stderr: stderr.trim() }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/^[^\n]*ambit local up[^\n]*$/),
    });
  });
});

const NOBODY = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
/** The checkout may lie where only root may look. */
const READS_ANYTHING = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"];

describe("a machine that lacks something", () => {
  const up = ["local", "up", "--sample", "bookshop"];

  it.each<[string, string[], RegExp]>([
    ["root", [...NOBODY, ...READS_ANYTHING], /needs root/],
    [
      "a capability",
      ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"],
      /needs CAP_NET_ADMIN/,
    ],
  ])("%s: is told before anything is made", async (_, restriction, text) => {
    const bare = new Lab();
    const outcome = await bare.run("setpriv", [...restriction, AMBIT, ...up]);
    expect(outcome.stderr.trim()).toMatch(text);
    expect({ ...outcome, stderr: outcome.stderr.trim().split("\n").length }).toEqual({
      code: 1,
      stdout: "",
      stderr: 1,
    });
    await bare.down();
  });

  it("a kernel feature: names what the kernel refused", async () => {
    const bare = new Lab();
    const folder = dirname(
      bare.program("nft", "echo 'Error: Operation not supported' >&2; exit 1"),
    );
    const path = `${folder}:${process.env["PATH"]}`;
    const outcome = await bare.run("env", [`PATH=${path}`, AMBIT, ...up]);
    expect(outcome.stderr.trim()).toMatch(/^[^\n]*Operation not supported[^\n]*nf_tables[^\n]*$/);
    expect(outcome.code).toBe(1);
    await bare.down();
  });
});

const service = (fields: string) => `apiVersion: v1
kind: Service
metadata: { name: far, namespace: shop }
spec:
${fields}
`;

describe("mistakes in a manifest", () => {
  it.each<[string, string, RegExp]>([
    [
      "a port out of range",
      service("  ports: [{ name: a, port: 99999 }]"),
      /:5:? .*ports\[0\]\.port/,
    ],
    [
      "a conflicting port",
      service("  ports: [{ name: a, port: 80 }, { name: b, port: 80 }]"),
      /:5:? .*ports\[1\]/,
    ],
    ["YAML that does not parse", service("  ports: [{"), /:\d+/],
    [
      "an unknown field",
      `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mood: STRICT } }
`,
      /:4:? .*mood/,
    ],
    ["an unknown kind", "apiVersion: v1\nkind: Gadget\nmetadata: { name: a }\n", /:\d+:? .*Gadget/],
  ])("%s is refused with its place, and nothing changes", async (_, yaml, text) => {
    const { code, stderr } = await lab.ambit("local", "apply", "-f", lab.file("bad.yaml", yaml));
    expect(stderr.trim()).toMatch(text);
    expect(stderr.trim()).toContain("bad.yaml");
    expect(code).toBe(1);
    expect(await lab.get("client.shop", "http://far/")).toContain("far sees");
  });
});
