import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "./lab.ts";
import { SHOP } from "./shop.ts";

const lab = new Lab();

beforeAll(() => lab.up(SHOP));
afterAll(() => lab.down());

/** Runs a line of JavaScript in the client pod. */
const script = (text: string) => lab.exec("client.shop", process.execPath, "-e", text);

describe("traffic between enrolled pods", () => {
  it.each(["near", "far"])("reaches %s, which sees the client's own address", async (name) => {
    const expected = `${name} sees ${await lab.ipOf("client")}`;
    expect(await lab.get("client.shop", `http://${name}/`)).toBe(expected);
  });

  it.each(["far", "far.shop", "far.shop.svc", "far.shop.svc.cluster.local", "far-headless:8080"])(
    "finds a service as %s",
    async (host) => {
      expect(await lab.get("client.shop", `http://${host}/`)).toContain("far sees");
    },
  );

  it("reaches a pod by its own service, too", async () => {
    // By its short name it finds its own address: that is its hostname.
    expect(await lab.get("far.shop", "http://far.shop/")).toContain("far sees");
  });

  it("finds a pod by its address, of either family", async () => {
    const { ips } = await lab.pod("far");
    expect(ips).toHaveLength(2);
    for (const ip of ips) {
      const host = ip.includes(":") ? `[${ip}]` : ip;
      expect(await lab.get("client.shop", `http://${host}:8080/`)).toContain("far sees");
    }
  });

  it("keeps half-close", async () => {
    const client = `const s = require("net").connect(
      { host: "far", port: 9000, allowHalfOpen: true }, () => s.end("hi"));
      s.on("data", (c) => process.stdout.write(c))`;
    expect(await script(client)).toBe("echo:hi");
  });

  it("lets the server speak first", async () => {
    const client = `require("net").connect(9001, "far").on("data", (c) => process.stdout.write(c))`;
    expect(await script(client)).toBe("220 first");
  });

  it("carries an upgraded connection", async () => {
    const client = `require("http").get(
      { host: "far", headers: { Connection: "Upgrade", Upgrade: "websocket" } })
      .on("upgrade", (_, s) => { s.write("ping");
        s.on("data", (c) => { process.stdout.write(c); s.destroy() }) })`;
    expect(await script(client)).toBe("ping");
  });

  it.each(["near", "far"])("moves 1 GiB to %s and back intact", async (name) => {
    const mebibytes = 1024;
    const make = `${process.execPath} -e '
      const b = Buffer.alloc(1 << 20, "ambit"); let n = ${mebibytes};
      const more = () => { while (n-- > 0)
        if (!process.stdout.write(b)) return process.stdout.once("drain", more) };
      more()'`;
    const sums = await lab.exec(
      "client.shop",
      "sh",
      "-c",
      `${make} | sha256sum | cut -c1-64
       ${make} | curl -s -T - http://${name}/sum; echo
       curl -s http://${name}/bytes/${mebibytes} | sha256sum | cut -c1-64`,
    );
    const [original, uploaded, downloaded] = sums.split("\n");
    expect([uploaded, downloaded]).toEqual([original, original]);
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
    const { fabric, nodes } = await lab.status();
    const capture = captureLink(fabric.netns, nodes.find(({ name }) => name === "node-1")!.link);
    await once(capture.stderr!, "data"); // It says that it listens.
    let text = "";
    capture.stdout!.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
    for (let i = 0; i < 5; i++) await lab.get("client.shop", "http://far/");
    await expect.poll(() => text.length).toBeGreaterThan(1000);
    capture.kill("SIGINT");
    await once(capture, "close");
    const packets = text.split("\n").filter((line) => /^\d.* IP6? .*: Flags/.test(line));
    expect(packets.length).toBeGreaterThan(5);
    expect(packets.filter((line) => !line.includes(".15008"))).toEqual([]);
    expect(text).not.toMatch(/far sees|GET \//);
  });
});

function captureLink(netns: string, link: string): ChildProcess {
  const tcpdump = ["tcpdump", "-i", link, "-nn", "-A", "-l", "net 10.244.0.0/16"];
  return spawn("ip", ["netns", "exec", netns, ...tcpdump], { stdio: ["ignore", "pipe", "pipe"] });
}

describe("peers outside the mesh", () => {
  it("are reached, and reach in, in plain text", async () => {
    expect(await lab.get("client.shop", "http://legacy.outside/")).toContain("legacy sees");
    const expected = `far sees ${await lab.ipOf("legacy")}`;
    expect(await lab.get("legacy.outside", "http://far.shop/")).toBe(expected);
    expect(await lab.get("client.shop", "http://optout/")).toContain("optout sees");
  });
});
