import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadObject } from "@ambit/common/sys/bpf-object.ts";
import { pinObject } from "@ambit/common/sys/bpf-map.ts";
import { mapFolder, pinFolder, Steering } from "@ambit/common/sys/bpf-steering.ts";
import { ensureBpffs } from "@ambit/common/sys/bpffs.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { listenTcp } from "@ambit/common/sys/sockets.ts";
import type { Ip } from "@ambit/common/net/ip.ts";
import { memoryLog } from "@ambit/common/telemetry/log.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { FakeWorkers } from "../testing/fake-workers.ts";
import { LEASE_MS, NodeSteering, RENEW_MS } from "./steering.ts";

let bpffs: string;
let clock: FakeClock;
let workers: FakeWorkers;
let map: Steering;

beforeEach(() => {
  bpffs = mkdtempSync(join(tmpdir(), "ambit-lease-"));
  ensureBpffs(bpffs);
  const folder = mapFolder(pinFolder(bpffs, "node-1"));
  mkdirSync(folder, { recursive: true });
  using object = loadObject({ programs: ["steer"] });
  for (const [name, fd] of object.maps) pinObject(fd, join(folder, name));
  map = Steering.openPinned(pinFolder(bpffs, "node-1"), ["lease"]);
  clock = new FakeClock();
  workers = new FakeWorkers();
});
afterEach(() => {
  map[Symbol.dispose]();
  execFileSync("umount", ["-l", bpffs]);
  rmdirSync(bpffs);
});

function steering(workerThreads = 1): NodeSteering {
  const config = { bpfFs: bpffs, nodeName: "node-1", workerThreads, ipv6: true };
  return new NodeSteering({ config, workers, clock, log: memoryLog().log.scope("inpod") });
}

/** As if it had run out: what renews it shows. */
function expire(): void {
  map.renewLease(-1);
  expect(map.leaseExpired).toBe(true);
}

describe("the lease", () => {
  it("is taken with the first pod that is steered, and renewed as long as workers answer", async () => {
    const node = steering();
    expire();
    using _ = node.prepare(3, undefined);
    expect(map.leaseExpired).toBe(false);
    for (let times = 0; times < 3; times++) {
      expire();
      await clock.advance(RENEW_MS);
      expect(map.leaseExpired).toBe(false);
    }
    expect(LEASE_MS).toBeGreaterThan(2 * RENEW_MS);
    node.close();
  });

  it("runs out when a worker hangs", async () => {
    const node = steering();
    using _ = node.prepare(3, undefined);
    workers.answers.ping = () => new Promise<never>(() => undefined);
    expire();
    await clock.advance(10 * RENEW_MS);
    expect(map.leaseExpired).toBe(true);
    node.close();
  });

  it("is not renewed any more by who leaves", async () => {
    const node = steering();
    using _ = node.prepare(3, undefined);
    node.close();
    expire();
    await clock.advance(10 * RENEW_MS);
    expect(map.leaseExpired).toBe(true);
  });
});

describe("the listeners' ports", () => {
  it("are each worker's own when there is one", () => {
    const node = steering();
    using prepared = node.prepare(3, undefined);
    expect(prepared.steering).toEqual({ pins: pinFolder(bpffs, "node-1"), slot: 3 });
    node.close();
  });

  it("are kept free for several, who share them", () => {
    const node = steering(2);
    using prepared = node.prepare(3, undefined);
    const ports = Object.values(prepared.steering.ports!);
    expect(new Set(ports).size).toBe(4);
    const address = { ip: "::" as Ip, port: ports[0]! };
    const fds = [1, 2].map(() => listenTcp(undefined, { address, reusePort: true }));
    fds.forEach(closeFd);
    node.close();
  });
});

it("cannot be prepared without maps", () => {
  const config = { bpfFs: bpffs, nodeName: "elsewhere", workerThreads: 1, ipv6: true };
  const node = new NodeSteering({ config, workers, clock, log: memoryLog().log.scope("inpod") });
  expect(() => node.prepare(0, undefined)).toThrow("ENOENT");
  node.close();
});
