import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NO_USAGE, PodAccount, type Seat, sumUsage } from "./pod-account.ts";
import type { Direction } from "./connection-telemetry.ts";
import { PodMetrics } from "./pod-metrics.ts";

const counted = (sent: number, received: number) => ({ sent, received });

describe("a pod's account", () => {
  it("counts connections and bytes while they last and when they are over", () => {
    const account = new PodAccount({ inbound: 10, outbound: 10 });
    const counters = counted(1, 2);
    const inbound = account.open("inbound", counters)!;
    const outbound = account.open("outbound", counted(10, 20))!;
    counters.sent = 5;
    const live = { inbound: 1, outbound: 1, opened: 2, sentBytes: 15, receivedBytes: 22 };
    expect(account.usage()).toEqual({ ...NO_USAGE, ...live });
    inbound[Symbol.dispose]();
    inbound[Symbol.dispose]();
    expect(account.usage()).toEqual({ ...NO_USAGE, ...live, inbound: 0 });
    outbound[Symbol.dispose]();
    expect(account.usage()).toEqual({ ...NO_USAGE, ...live, inbound: 0, outbound: 0 });
  });

  it("refuses the first connection past its bound, and takes one again when one is over", () => {
    const account = new PodAccount({ inbound: 2, outbound: 1 });
    const open = (direction: Direction) => account.open(direction, counted(0, 0));
    const first = open("inbound")!;
    expect([open("inbound"), open("outbound")]).not.toContain(undefined);
    expect([open("inbound"), open("outbound")]).toEqual([undefined, undefined]);
    expect(account.usage()).toMatchObject({ inbound: 2, outbound: 1, opened: 3, refused: 2 });
    first[Symbol.dispose]();
    expect(open("outbound")).toBeUndefined();
    expect(open("inbound")).toBeDefined();
  });

  it("counts what goes past ztunnel, which takes nobody's place and is no work", () => {
    const account = new PodAccount({ inbound: 1, outbound: 1 });
    const seat = account.past.open("outbound", counted(1, 2));
    account.past.add(10, 20);
    const past = { opened: 2, sentBytes: 11, receivedBytes: 22 };
    expect(account.usage()).toEqual({ ...NO_USAGE, ...past, outbound: 1 });
    seat[Symbol.dispose]();
    expect(account.usage()).toEqual({ ...NO_USAGE, ...past });
    expect(account.takeWork()).toBe(0);
    account.past.open("outbound", counted(0, 0));
    expect(account.open("outbound", counted(0, 0))).toBeDefined();
  });

  it("never has more than its bounds, and never loses a byte, whatever comes and goes", () => {
    const action = fc.oneof(
      fc.record({ open: fc.constantFrom("inbound", "outbound"), bytes: fc.nat(1000) }),
      fc.record({ close: fc.nat(100) }),
    );
    fc.assert(
      fc.property(fc.array(action), (actions) => {
        const account = new PodAccount({ inbound: 3, outbound: 2 });
        const seats: Seat[] = [];
        let bytes = 0;
        for (const each of actions) {
          if ("close" in each) seats.splice(each.close, 1)[0]?.[Symbol.dispose]();
          else {
            const seat = account.open(each.open, counted(each.bytes, 0));
            if (seat !== undefined) bytes += each.bytes;
            if (seat !== undefined) seats.push(seat);
          }
          const { inbound, outbound } = account.usage();
          expect([inbound > 3, outbound > 2]).toEqual([false, false]);
        }
        const { inbound, outbound, sentBytes } = account.usage();
        expect([inbound + outbound, sentBytes]).toEqual([seats.length, bytes]);
      }),
    );
  });

  it("is the sum of what the workers have", () => {
    const one = { ...NO_USAGE, inbound: 1, sentBytes: 5, cpuSeconds: 0.5 };
    const sums = sumUsage([
      { uid: "a", usage: one },
      { uid: "b", usage: NO_USAGE },
      { uid: "a", usage: one },
    ]);
    expect(sums.get("a")).toEqual({ ...NO_USAGE, inbound: 2, sentBytes: 10, cpuSeconds: 1 });
    expect(sums.get("b")).toEqual(NO_USAGE);
  });
});

describe("the metrics of a worker's pods", () => {
  const pod = (name: string) => ({
    uid: `uid-${name}`,
    info: { name, namespace: "shop", serviceAccount: "sa" },
    account: new PodAccount({ inbound: 1, outbound: 1 }),
  });

  it("name the pod; processor time goes to whom the work was done for", () => {
    let usedSeconds = 100;
    const metrics = new PodMetrics(() => usedSeconds);
    const [busy, idle] = [pod("busy"), pod("idle")];
    const cpu = () => metrics.usage([busy, idle]).map(({ usage }) => usage.cpuSeconds);
    busy.account.open("outbound", counted(1_000, 3_000));
    busy.account.open("outbound", counted(0, 0));
    usedSeconds += 2;
    expect(cpu()).toEqual([2, 0]);
    usedSeconds += 1;
    expect(cpu()).toEqual([2, 0]);
    idle.account.open("inbound", counted(0, 0));
    usedSeconds += 1;
    expect(cpu()).toEqual([2, 1]);
    const labels = { namespace: "shop", pod: "busy" };
    const values = Object.fromEntries(
      metrics
        .collect([busy])
        .map(({ name, values: samples }) => [
          name,
          samples.map(({ labels: l, value }) => [l, value]),
        ]),
    );
    expect(values).toEqual({
      ambit_ztunnel_pod_connections: [
        [{ ...labels, direction: "inbound" }, 0],
        [{ ...labels, direction: "outbound" }, 1],
      ],
      ambit_ztunnel_pod_connections_opened_total: [[labels, 1]],
      ambit_ztunnel_pod_connections_refused_total: [[labels, 1]],
      ambit_ztunnel_pod_bytes_total: [
        [{ ...labels, direction: "sent" }, 1_000],
        [{ ...labels, direction: "received" }, 3_000],
      ],
      ambit_ztunnel_pod_cpu_seconds_total: [[labels, 2]],
    });
  });

  it("are absent without pods", () => {
    expect(new PodMetrics(() => 0).collect([])).toEqual([]);
  });
});
