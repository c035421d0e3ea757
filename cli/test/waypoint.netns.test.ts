// Waypoints as ztunnels use them: a Gateway whose author runs its pods. They are in the mesh themselves, their
// node's ztunnel ends the tunnels and hands connections over with a PROXY header.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isOurs, Lab, SOON } from "./lab.ts";
import { service, SHOP } from "./shop.ts";

const USE = "istio.io/use-waypoint";

/** Answers every connection itself, with what the PROXY header (version 2) says of it. */
const SCRIPT = `
require("node:net").createServer((socket) => socket.once("data", (data) => {
  const end = 16 + data.readUInt16BE(14);
  const text = data.subarray(16, end).toString("latin1");
  const source = /spiffe:\\/\\/[-a-z.\\/]*/.exec(text)?.[0] ?? "nobody";
  const body = "waypoint sees " + source + "\\n";
  socket.end("HTTP/1.1 200 OK\\r\\nconnection: close\\r\\ncontent-length: " + body.length + "\\r\\n\\r\\n" + body);
})).listen(15088, "::");
`;

const WAYPOINT = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: wp
  namespace: shop
  annotations: { ambient.istio.io/waypoint-inbound-binding: PROXY/15088 }
spec:
  gatewayClassName: istio-waypoint
  addresses: [{ type: Hostname, value: wp.shop.svc.cluster.local }]
  listeners: [{ name: mesh, port: 15008, protocol: HBONE }]
---
${service("wp", "wp", "ports: [{ name: mesh, port: 15008 }]")}
apiVersion: v1
kind: Pod
metadata:
  name: wp
  namespace: shop
  labels: { app: wp, gateway.networking.k8s.io/gateway-name: wp }
spec:
  nodeName: node-2
  serviceAccountName: wp
  containers:
    - name: proxy
      command: [${process.execPath}, -e, ${JSON.stringify(SCRIPT)}]
      readinessProbe: { tcpSocket: { port: 15088 }, periodSeconds: 1 }
---
`;

const ON_DEMAND = { XDS_ON_DEMAND: "true", ISTIO_META_DNS_CAPTURE: "false" };
/** Istio's does not take a service for the answer to its address: its first connection waits in vain. */
const KNOWLEDGE: [string, Record<string, string>][] = [
  ["everything", {}],
  ...(isOurs("node-1") && isOurs("node-2")
    ? [["only what they ask for", ON_DEMAND] as [string, Record<string, string>]]
    : []),
];

describe.each(KNOWLEDGE)("a waypoint, to ztunnels that know %s,", (_what, settings) => {
  const lab = new Lab(settings);
  const vips = new Map<string, string>();
  beforeAll(async () => {
    await lab.up(SHOP + WAYPOINT);
    for (const name of ["near", "far"]) {
      const text = await lab.must("local", "get", "service", name, "-n", "shop", "-o", "json");
      vips.set(name, /"clusterIPs?": \[?\s*"([0-9.]+)"/.exec(text)![1]!);
    }
  });
  afterAll(() => lab.down());

  const label = (...args: string[]) => lab.must("local", "label", ...args);
  const get = (name: string) => lab.get("client.shop", `http://${vips.get(name)}/`);
  const far = () => get("far");

  it("is gone through by connections to the services that name it, with who is calling", async () => {
    expect(await far()).toContain("far sees");
    await label("service", "far", "-n", "shop", `${USE}=wp`);
    await expect.poll(far, SOON).toBe("waypoint sees spiffe://cluster.local/ns/shop/sa/client");
    expect(await get("near")).toContain("near sees");
    await label("service", "far", "-n", "shop", `${USE}-`);
    await expect.poll(far, SOON).toContain("far sees");
  });

  it("may be named for a whole namespace, with services that opt out", async () => {
    await label("namespace", "shop", `${USE}=wp`);
    await label("service", "near", "-n", "shop", `${USE}=none`);
    await expect.poll(far, SOON).toContain("waypoint sees");
    expect(await get("near")).toContain("near sees");
    await label("service", "near", "-n", "shop", `${USE}-`);
    await label("namespace", "shop", `${USE}-`);
    await expect.poll(far, SOON).toContain("far sees");
  });

  it("that does not exist leaves traffic as it was, and the service's status says so", async () => {
    await label("service", "far", "-n", "shop", `${USE}=gone`);
    const reason = async () => {
      const text = await lab.must("local", "get", "service", "far", "-n", "shop", "-o", "json");
      return /"reason": "([A-Za-z]*)"/.exec(text)?.[1];
    };
    await expect.poll(reason, SOON).toBe("WaypointIsNotReady");
    expect(await far()).toContain("far sees");
    await label("service", "far", "-n", "shop", `${USE}=wp`);
    await expect.poll(reason, SOON).toBe("WaypointAccepted");
    await label("service", "far", "-n", "shop", `${USE}-`);
    await expect.poll(reason, SOON).toBeUndefined();
  });
});
