import packet from "dns-packet";
import { expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { NXDOMAIN, Upstream } from "../testing/dns-lab.ts";
import { Forwarder, FORWARDS_IN_FLIGHT_MAX } from "./forward.ts";

const QUERY = packet.encode({
  type: "query",
  id: 1,
  questions: [{ type: "A", name: "else.example" }],
});

function forwarder(upstreams: readonly Upstream[], forced = new AbortController().signal) {
  const clock = new FakeClock();
  const options = { netnsFd: undefined, mark: undefined, clock, upstreams, forced };
  return { clock, forward: new Forwarder(options) };
}

it("has so many queries in flight and not one more, until some are over", async () => {
  using silent = await Upstream.listen(() => undefined);
  const ending = new AbortController();
  const { forward } = forwarder([silent], ending.signal);
  const under = Array.from({ length: FORWARDS_IN_FLIGHT_MAX }, () => forward.forward(QUERY, "udp"));
  expect(await forward.forward(QUERY, "udp")).toBe("too many queries in flight");
  ending.abort();
  const ended = "no upstream resolver answered";
  expect(new Set(await Promise.all(under))).toEqual(new Set([ended]));
  expect(await forward.forward(QUERY, "udp")).toBe(ended);
});

it("leaves no timer and no socket behind", async () => {
  using upstream = await Upstream.listen(NXDOMAIN);
  const { clock, forward } = forwarder([upstream]);
  for (const transport of ["udp", "tcp"] as const) {
    const answer = await forward.forward(QUERY, transport);
    expect(Buffer.isBuffer(answer)).toBe(true);
  }
  expect(clock.pendingTimers).toBe(0);
});
