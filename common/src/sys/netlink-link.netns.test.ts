// What rtnetlink tells of links is what `ip` and `tc` made.

import { execFileSync } from "node:child_process";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Link, Links } from "./netlink-link.ts";
import { createNetns, inNetns, type NetnsHandle } from "./netns.ts";
import { findPodLink } from "./pod-link.ts";

let node: NetnsHandle;
let pod: NetnsHandle;
beforeEach(() => {
  [node, pod] = [createNetns(), createNetns()];
  run(node, "ip link add pod0 type veth peer name eth0");
  // The namespace has no name: by the process that opened it.
  run(node, `ip link set eth0 netns /proc/${process.pid}/fd/${pod.fd}`);
});
afterEach(() => {
  for (const netns of [node, pod]) netns.close();
});

function run(netns: NetnsHandle, command: string): void {
  const [program = "", ...words] = command.split(" ");
  inNetns(netns.fd, () => execFileSync(program, words, { stdio: "pipe" }));
}

/** The only one besides lo. */
function linkOf(netns: NetnsHandle): Link {
  using links = new Links(netns.fd);
  return links.all().find(({ kind }) => kind === "veth")!;
}

const filtered = (index: number) => {
  using links = new Links(node.fd);
  return links.hasFilters(index);
};

it("each end of a veth names the other, and where it is", () => {
  const [here, there] = [linkOf(pod), linkOf(node)];
  expect(here).toMatchObject({ kind: "veth", peer: there.index, isLoopback: false, hasXdp: false });
  expect(there).toMatchObject({ kind: "veth", peer: here.index });
  using inPod = new Links(pod.fd);
  expect(here.peerNetns).toBe(inPod.netnsId(node.fd));
  using stranger = createNetns();
  expect(inPod.netnsId(stranger.fd)).toBeUndefined();
  expect(inPod.all().find(({ isLoopback }) => isLoopback)).toMatchObject({
    index: 1,
    peer: undefined,
  });
});

it("an interface that is gone is undefined", () => {
  using links = new Links(node.fd);
  const { index } = linkOf(node);
  expect(links.get(index)).toEqual(linkOf(node));
  run(node, "ip link del pod0");
  expect(links.get(index)).toBeUndefined();
});

it.each(["clsact", "ingress"])("filters may be where there is %s", (kind) => {
  const { index } = linkOf(node);
  expect(filtered(index)).toBe(false);
  run(node, `tc qdisc add dev pod0 ${kind}`);
  expect(filtered(index)).toBe(true);
  run(node, `tc qdisc del dev pod0 ${kind}`);
  expect(filtered(index)).toBe(false);
});

it("a pod's link is found from inside the pod", async () => {
  run(node, "ip link set pod0 up");
  run(pod, "ip link set eth0 up");
  // The kernel puts it into service some moments after it is up.
  const { index } = linkOf(node);
  await expect.poll(() => findPodLink(pod, node), { timeout: 5_000 }).toEqual({ index });
  using stranger = createNetns();
  expect(findPodLink(pod, stranger)).toEqual({ problem: "node" });
  run(node, "tc qdisc add dev pod0 root pfifo_fast");
  expect(findPodLink(pod, node)).toEqual({ problem: "queueing" });
  run(pod, "ip link add one type veth peer name two");
  expect(findPodLink(pod, node)).toEqual({ problem: "links" });
});
