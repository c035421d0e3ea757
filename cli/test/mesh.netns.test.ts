import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";

const lab = new Lab();

/** Answers HTTP with who it is and whom it sees; echoes TCP on 9000; speaks first on 9001. */
const SERVER = `
const http = require("http"), net = require("net"), crypto = require("crypto");
http.createServer((q, s) => {
  if (q.url === "/sum") { const h = crypto.createHash("sha256"); q.on("data", (c) => h.update(c)); q.on("end", () => s.end(h.digest("hex"))); return; }
  if (q.url.startsWith("/bytes/")) { const b = Buffer.alloc(1 << 20, "ambit"); let n = Number(q.url.slice(7)); const more = () => { while (n-- > 0) if (!s.write(b)) return s.once("drain", more); s.end(); }; return more(); }
  s.end(process.env.NAME + " sees " + q.socket.remoteAddress.replace("::ffff:", ""));
}).on("upgrade", (q, s) => { s.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n"); s.pipe(s); }).listen(8080, "::");
net.createServer({ allowHalfOpen: true }, (s) => { let t = ""; s.on("data", (c) => t += c); s.on("end", () => s.end("echo:" + t)); }).listen(9000, "::");
net.createServer((s) => s.end("220 first\\n")).listen(9001, "::");
`.replaceAll("\n", " ");

const pod = (name: string, namespace: string, node: string, extra = "") => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${name.replace(/-\d$/, "")}${extra} } }
spec:
  nodeName: ${node}
  serviceAccountName: ${name}
  containers:
    - name: app
      command: [node, -e, ${JSON.stringify(SERVER)}]
      env: [{ name: NAME, value: ${name} }]
      ports: [{ name: web, containerPort: 8080 }]
      readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---`;
const service = (name: string, spec: string, namespace = "shop") => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec: { selector: { app: ${name.replace(/-headless$/, "")} }, ${spec} }
---`;
const PORTS =
  "ports: [{ name: http, port: 80, targetPort: web }, { name: tcp, port: 9000 }, { name: first, port: 9001 }]";

const MESH = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: outside }
---
${pod("client", "shop", "node-1")}${pod("near", "shop", "node-1")}${pod("far", "shop", "node-2")}
${pod("legacy", "outside", "node-2")}${pod("optout", "shop", "node-2", ", istio.io/dataplane-mode: none")}
${service("near", PORTS)}${service("far", PORTS)}${service("far-headless", `clusterIP: None, ${PORTS}`)}
${service("legacy", PORTS, "outside")}${service("optout", PORTS)}`;

beforeAll(() => lab.up(MESH));
afterAll(() => lab.down());

async function ipOf(name: string): Promise<string> {
  return (await lab.pod(name)).ips[0]!;
}

describe("traffic between enrolled pods", () => {
  it.each(["near", "far"])("reaches %s, which sees the client's own address", async (name) => {
    expect(await lab.get("client.shop", `http://${name}/`)).toBe(
      `${name} sees ${await ipOf("client")}`,
    );
  });

  it.each(["far", "far.shop", "far.shop.svc", "far.shop.svc.cluster.local"])(
    "finds a service as %s",
    async (host) => {
      expect(await lab.get("client.shop", `http://${host}/`)).toContain("far sees");
    },
  );

  it("finds a headless service, and a pod by its address", async () => {
    expect(await lab.get("client.shop", "http://far-headless:8080/")).toContain("far sees");
    expect(await lab.get("client.shop", `http://${await ipOf("far")}:8080/`)).toContain("far sees");
  });

  it("keeps half-close, and lets the server speak first", async () => {
    const script = `const s=require("net").connect({host:"far",port:9000,allowHalfOpen:true},()=>s.end("hi"));s.on("data",c=>process.stdout.write(c))`;
    expect(await lab.exec("client.shop", "node", "-e", script)).toBe("echo:hi");
    const first = `require("net").connect(9001,"far").on("data",c=>process.stdout.write(c))`;
    expect(await lab.exec("client.shop", "node", "-e", first)).toBe("220 first");
  });

  it("carries an upgraded connection", async () => {
    const script = `const r=require("http").get({host:"far",headers:{Connection:"Upgrade",Upgrade:"websocket"}});r.on("upgrade",(_,s)=>{s.write("ping");s.on("data",c=>{process.stdout.write(c);s.destroy()})})`;
    expect(await lab.exec("client.shop", "node", "-e", script)).toBe("ping");
  });

  it("moves a large body each way intact", async () => {
    const make =
      'node -e \'const b=Buffer.alloc(1<<20,"ambit");let n=200;const f=()=>{while(n-->0)if(!process.stdout.write(b))return process.stdout.once("drain",f)};f()\'';
    const sums = await lab.exec(
      "client.shop",
      "sh",
      "-c",
      `${make} | sha256sum | cut -c1-64; ${make} | curl -s -T - http://far/sum; echo; curl -s http://far/bytes/200 | sha256sum | cut -c1-64`,
    );
    expect(new Set(sums.split("\n")).size).toBe(1);
  });

  it("logs both identities, bytes and duration on both nodes", async () => {
    await lab.get("client.shop", "http://far/");
    for (const [node, direction] of [
      ["node-1", "outbound"],
      ["node-2", "inbound"],
    ] as const) {
      const line = (await lab.accessLines(node)).findLast(
        (text) => text.includes(`direction="${direction}"`) && text.includes('dst.workload="far"'),
      );
      expect(line).toMatch(/src\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/client"/);
      expect(line).toMatch(/dst\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/far"/);
      expect(line).toMatch(/bytes_sent=[1-9]\d* bytes_recv=[1-9]\d* duration="\d+ms"/);
    }
  });

  it("shows nothing but TLS to port 15008 on the link between the nodes", async () => {
    const { nodes } = JSON.parse(await lab.must("local", "status", "-o", "json")) as {
      nodes: { name: string; netns: string; link: string }[];
    };
    const node = nodes.find(({ name }) => name === "node-1")!;
    const capture = spawn(
      "ip",
      [
        "netns",
        "exec",
        node.netns,
        "tcpdump",
        "-i",
        node.link,
        "-nn",
        "-A",
        "-l",
        "-c",
        "400",
        "net 10.244.0.0/16",
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    await firstOutput(capture);
    let text = "";
    capture.stdout!.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
    for (let i = 0; i < 5; i++) await lab.get("client.shop", "http://far/");
    await expect.poll(() => text.length).toBeGreaterThan(1000);
    capture.kill("SIGINT");
    await once(capture, "close");
    const packets = text
      .split("\n")
      .filter((line) => / IP /.test(line) && line.includes(": Flags"));
    expect(packets.length).toBeGreaterThan(5);
    expect(packets.filter((line) => !line.includes(".15008"))).toEqual([]);
    expect(text).not.toContain("far sees");
    expect(text).not.toContain("GET /");
  });
});

/** tcpdump says on standard error that it listens. */
function firstOutput(child: ChildProcess): Promise<unknown> {
  return once(child.stderr!, "data");
}

describe("peers outside the mesh", () => {
  it("are reached, and reach in, in plain text", async () => {
    expect(await lab.get("client.shop", "http://legacy.outside/")).toContain("legacy sees");
    expect(await lab.get("legacy.outside", "http://far.shop/")).toBe(
      `far sees ${await ipOf("legacy")}`,
    );
    expect(await lab.get("client.shop", "http://optout/")).toContain("optout sees");
  });

  it("include pods that opt out by label", async () => {
    const meshes = Object.fromEntries((await lab.pods()).map(({ name, mesh }) => [name, mesh]));
    expect(meshes).toMatchObject({ client: "enrolled", near: "enrolled", far: "enrolled" });
    expect([meshes["legacy"], meshes["optout"]]).not.toContain("enrolled");
  });
});

describe("policy, within a second and lifted again", () => {
  const FAST = { timeout: 1_500, interval: 50 };
  const reach = (from: string, to: string) =>
    lab.get(from, to).then((body) => (body.includes("sees") ? "reached" : "refused"));

  async function whileApplied(
    name: string,
    yaml: string,
    checks: readonly (readonly [string, string, "reached" | "refused"])[],
  ) {
    const path = lab.file(`${name}.yaml`, yaml);
    await lab.must("local", "apply", "-f", path);
    for (const [from, to, expected] of checks)
      await expect.poll(() => reach(from, to), FAST).toBe(expected);
    await lab.must("local", "delete", "-f", path);
    for (const [from, to] of checks) await expect.poll(() => reach(from, to), FAST).toBe("reached");
  }

  const strict = (mode: string, extra = "") =>
    `apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: default, namespace: shop }\nspec: { mtls: { mode: ${mode} }${extra} }\n`;
  const authorization = (action: string, rules: string) =>
    `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: shop }\nspec: { action: ${action}, selector: { matchLabels: { app: far } }, rules: ${rules} }\n`;

  it("STRICT refuses who has no identity, and only them", () =>
    whileApplied("strict", strict("STRICT"), [
      ["legacy.outside", "http://far.shop/", "refused"],
      ["client.shop", "http://far/", "reached"],
      ["client.shop", "http://near/", "reached"],
    ]));

  it("a permissive port stays open under STRICT", () =>
    whileApplied(
      "port",
      strict(
        "STRICT",
        ', selector: { matchLabels: { app: far } }, portLevelMtls: { "8080": { mode: PERMISSIVE } }',
      ),
      [["legacy.outside", "http://far.shop/", "reached"]],
    ));

  it.each([
    [
      "ALLOW by principal",
      "ALLOW",
      '[{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }] }]',
      "reached",
      "refused",
    ],
    [
      "ALLOW by another principal",
      "ALLOW",
      '[{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/near"] } }] }]',
      "refused",
      "refused",
    ],
    [
      "ALLOW by namespace",
      "ALLOW",
      "[{ from: [{ source: { namespaces: [shop] } }] }]",
      "reached",
      "refused",
    ],
    [
      "DENY by namespace",
      "DENY",
      "[{ from: [{ source: { namespaces: [shop] } }] }]",
      "refused",
      "reached",
    ],
    [
      "DENY by port",
      "DENY",
      '[{ to: [{ operation: { ports: ["8080"] } }] }]',
      "refused",
      "refused",
    ],
    [
      "DENY by another port",
      "DENY",
      '[{ to: [{ operation: { ports: ["9000"] } }] }]',
      "reached",
      "reached",
    ],
    [
      "DENY by address block",
      "DENY",
      "[{ from: [{ source: { ipBlocks: [10.244.1.0/24] } }] }]",
      "refused",
      "reached",
    ],
    ["ALLOW nothing", "ALLOW", "[]", "refused", "refused"],
  ] as const)("%s", (_, action, rules, client, legacy) =>
    whileApplied("policy", authorization(action, rules), [
      ["client.shop", "http://far/", client],
      ["legacy.outside", "http://far.shop/", legacy],
    ]),
  );

  it("applies the same on one node", () =>
    whileApplied("near", authorization("DENY", "[{}]").replace("app: far", "app: near"), [
      ["client.shop", "http://near/", "refused"],
    ]));

  it("explains the refusal with the policy that decided", async () => {
    const path = lab.file(
      "deny.yaml",
      authorization("DENY", "[{ from: [{ source: { namespaces: [shop] } }] }]"),
    );
    await lab.must("local", "apply", "-f", path);
    await expect.poll(() => reach("client.shop", "http://far/"), FAST).toBe("refused");
    const answer = JSON.parse(
      await lab.must("explain", "client.shop", "far.shop:80", "-o", "json"),
    ) as { verdict: string; decidedBy: string };
    expect(answer).toMatchObject({ verdict: "denied", decidedBy: "shop/p" });
    await lab.must("local", "delete", "-f", path);
  });
});

describe("joining and leaving at run time", () => {
  const FAST = { timeout: 1_500, interval: 50 };
  const meshOf = (name: string) => lab.pod(name).then(({ mesh }) => mesh);

  it("follows a namespace's label within a second, without touching the pod", async () => {
    const before = await lab.exec("legacy.outside", "sh", "-c", "readlink /proc/self/ns/net");
    await lab.must("local", "label", "namespace", "outside", "istio.io/dataplane-mode=ambient");
    await expect.poll(() => meshOf("legacy"), FAST).toBe("enrolled");
    expect(await lab.get("client.shop", "http://legacy.outside/")).toContain("legacy sees");
    await lab.must("local", "label", "namespace", "outside", "istio.io/dataplane-mode-");
    await expect.poll(() => meshOf("legacy"), FAST).not.toBe("enrolled");
    expect(await lab.get("client.shop", "http://legacy.outside/")).toContain("legacy sees");
    expect(await lab.exec("legacy.outside", "sh", "-c", "readlink /proc/self/ns/net")).toBe(before);
  });

  it("lets a pod's label beat its namespace's", async () => {
    await lab.must(
      "local",
      "label",
      "pod",
      "optout",
      "-n",
      "shop",
      "istio.io/dataplane-mode=ambient",
    );
    await expect.poll(() => meshOf("optout"), FAST).toBe("enrolled");
    await lab.must("local", "label", "pod", "optout", "-n", "shop", "istio.io/dataplane-mode=none");
    await expect.poll(() => meshOf("optout"), FAST).not.toBe("enrolled");
  });
});

describe("mistakes", () => {
  it.each<[string, string[], number, RegExp]>([
    ["a second up", ["local", "up", "--sample", "bookshop", "--detach"], 1, /already/],
    ["an unknown command", ["local", "dance"], 2, /dance/],
    ["a kind that is not known", ["local", "get", "gadget"], 2, /gadget/],
    ["a pod that is not there", ["local", "exec", "ghost.shop", "--", "true"], 1, /ghost/],
    ["an explain of nobody", ["explain", "ghost.shop", "far.shop:80"], 1, /ghost/],
  ])("%s is one clear sentence", async (_, args, code, text) => {
    const outcome = await lab.ambit(...args);
    expect([outcome.code, outcome.stderr.trim().split("\n").length]).toEqual([code, 1]);
    expect(outcome.stderr).toMatch(text);
  });

  it("leave everything as it was when a manifest is wrong", async () => {
    const bad = lab.file(
      "bad.yaml",
      "apiVersion: v1\nkind: Service\nmetadata: { name: far, namespace: shop }\nspec:\n  ports: [{ name: a, port: 99999 }]\n",
    );
    const outcome = await lab.ambit("local", "apply", "-f", bad);
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toMatch(/bad\.yaml:5: spec\.ports\[0\]\.port/);
    expect(await lab.get("client.shop", "http://far/")).toContain("far sees");
  });
});
