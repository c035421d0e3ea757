import { randomBytes } from "node:crypto";
import net from "node:net";
import { once } from "node:events";
import packet from "dns-packet";
import { afterEach, describe, expect, it } from "vitest";
import type { MetricFamily } from "../telemetry/traffic-metrics.ts";
import { serves, TestMesh } from "../state/testing-mesh.ts";
import {
  DnsLab,
  NXDOMAIN,
  type Transport,
  TRANSPORTS,
  Upstream,
  type UpstreamScript,
} from "../testing/dns-lab.ts";
import { QUERIES_IN_FLIGHT_MAX } from "./answerer.ts";
import { FORWARD_PATIENCE_MS } from "./forward.ts";
import { frameTcp, TcpMessages } from "./tcp-messages.ts";

const opened: Disposable[] = [];
afterEach(() => {
  for (const one of opened.splice(0)) one[Symbol.dispose]();
});

const mesh = () =>
  new TestMesh()
    .workload("client", ["10.0.0.1"], { canonicalName: "shop", canonicalRevision: "v2" })
    .service("web", ["10.96.0.1"]);

async function upstreamThat(script: UpstreamScript): Promise<Upstream> {
  const upstream = await Upstream.listen(script);
  opened.push(upstream);
  return upstream;
}

function labWith(upstreams: readonly Upstream[], known = mesh()): DnsLab {
  const lab = new DnsLab(known, { upstreams });
  opened.push(lab);
  return lab;
}

/** A query with flags and records that nobody should touch. */
function oddQuery(name = "else.example", type = 65_400): Buffer {
  const labels = name.split(".").map((label) => Buffer.from([label.length, ...Buffer.from(label)]));
  return Buffer.concat([
    Buffer.from([0xbe, 0xef, 0x01, 0x70, 0, 1, 0, 0, 0, 0, 0, 1]),
    ...labels,
    Buffer.from([0, type >> 8, type & 0xff, 0, 1]),
    // OPT: 1400 bytes, DO set, an option of a private code.
    Buffer.from([0, 0, 41, 0x05, 0x78, 0, 0, 0x80, 0, 0, 8, 0xff, 0xfe, 0, 4, 1, 2, 3, 4]),
  ]);
}

describe.each(TRANSPORTS)("forwarding over %s", (transport) => {
  it("brings the query to the upstream bit for bit, and its answer back", async () => {
    const made: Buffer[] = [];
    const upstream = await upstreamThat((query) => {
      const answer = Buffer.concat([query.subarray(0, 2), randomBytes(700)]);
      made.push(answer);
      return answer;
    });
    const lab = labWith([upstream]);
    for (const query of [
      oddQuery(),
      oddQuery("web", 65),
      oddQuery("web", 255),
      oddQuery("web", 16),
    ]) {
      const answer = await lab.exchange(query, transport);
      expect(upstream.queries.at(-1)).toEqual({ query, transport });
      expect(answer.equals(made.at(-1)!)).toBe(true);
    }
  });

  it("keeps the mixed case, a foreign class, and labels that are no host names", async () => {
    const upstream = await upstreamThat(NXDOMAIN);
    const lab = labWith([upstream]);
    const mixed = oddQuery("eLsE.ExAmPlE", 1);
    const chaos = oddQuery("web", 1);
    chaos[chaos.indexOf(Buffer.from([0, 1, 0, 1, 0])) + 3] = 3;
    const dotted = oddQuery("we\u0001b", 1);
    for (const query of [mixed, chaos, dotted]) {
      await lab.exchange(query, transport);
      expect(upstream.queries.at(-1)!.query.equals(query)).toBe(true);
    }
  });

  it("relays what the upstream refuses as it is", async () => {
    const refused = 0x8185;
    const upstream = await upstreamThat((query) => {
      const answer = Buffer.from(query);
      answer.writeUInt16BE(refused, 2);
      return answer;
    });
    const answer = await labWith([upstream]).exchange(oddQuery(), transport);
    expect(answer.readUInt16BE(2)).toBe(refused);
  });

  it("answers SERVFAIL, with the question, when there is no upstream", async () => {
    const answer = await labWith([]).ask("else.example", "A", transport);
    const questions = [{ name: "else.example", type: "A", class: "IN" }];
    expect(answer).toMatchObject({ rcode: "SERVFAIL", questions, flag_ra: true, flag_aa: false });
  });
});

describe("upstreams that fail", () => {
  /** Lets time pass until `work` is done. */
  async function whileTimePasses<T>(lab: DnsLab, work: Promise<T>): Promise<T> {
    const over = Symbol("over");
    const passing = async () => {
      await lab.context.clock.advance(100);
      return new Promise<typeof over>((resolve) => setTimeout(resolve, 1, over));
    };
    for (;;) {
      const first = await Promise.race([work, passing()]);
      if (first !== over) return first as T;
    }
  }

  it("are asked in turn", async () => {
    const silent = await upstreamThat(() => undefined);
    const good = await upstreamThat(NXDOMAIN);
    const lab = labWith([silent, good]);
    const answer = await whileTimePasses(lab, lab.ask("else.example"));
    expect(answer.rcode).toBe("NXDOMAIN");
    expect([silent.queries.length, good.queries.length]).toEqual([1, 1]);
  });

  it("are asked again, for what gets lost", async () => {
    let asked = 0;
    const lossy = await upstreamThat((...query) =>
      ++asked === 1 ? undefined : NXDOMAIN(...query),
    );
    const lab = labWith([lossy]);
    const answer = await whileTimePasses(lab, lab.ask("else.example"));
    expect([answer.rcode, asked]).toEqual(["NXDOMAIN", 2]);
  });

  it("cost five seconds, then the client hears SERVFAIL", async () => {
    const silent = await upstreamThat(() => undefined);
    const lab = labWith([silent]);
    const beganMs = lab.context.clock.monotonicMs();
    const answer = await whileTimePasses(lab, lab.ask("else.example"));
    expect(answer.rcode).toBe("SERVFAIL");
    const tookMs = lab.context.clock.monotonicMs() - beganMs;
    expect(tookMs).toBeGreaterThanOrEqual(FORWARD_PATIENCE_MS);
  });

  it("that refuse connections are asked once each", async () => {
    const gone = await Upstream.listen(NXDOMAIN);
    gone[Symbol.dispose]();
    const answer = await labWith([gone]).ask("else.example", "A", "tcp");
    expect(answer.rcode).toBe("SERVFAIL");
  });

  it("cannot be impersonated by another address or with another id", async () => {
    const upstream = await upstreamThat((query) => {
      const forged = NXDOMAIN(query, "udp")!;
      forged[0]! ^= 1;
      return forged;
    });
    const lab = labWith([upstream]);
    expect((await whileTimePasses(lab, lab.ask("else.example"))).rcode).toBe("SERVFAIL");
  });
});

describe("large answers of our own", () => {
  const endpoints = 100;
  const large = () => {
    const known = mesh().service("crowd", []);
    for (let i = 0; i < endpoints; i++) {
      known.workload(`w${i}`, [`10.1.0.${i}`], { services: serves("crowd") });
    }
    return known;
  };
  const edns = (udpPayloadSize: number): packet.Packet => ({
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: packet.DNSSEC_OK,
        flag_do: true,
        options: [],
      },
    ],
  });

  it("are cut over UDP, with TC, to 512 bytes or what the client can take", async () => {
    const lab = labWith([], large());
    for (const [limit, query] of [
      [512, {}],
      [512, edns(100)],
      [1232, edns(1232)],
    ] as const) {
      const questions = [{ type: "A" as const, name: "crowd" }];
      const message = packet.encode({ type: "query", id: 1, questions, ...query });
      const bytesBack = await lab.exchange(message, "udp");
      expect(bytesBack.length).toBeLessThanOrEqual(limit);
      expect(bytesBack.length).toBeGreaterThan(limit - 16);
      const answer = packet.decode(bytesBack);
      expect(answer.flag_tc).toBe(true);
      expect(answer.answers!.length).toBeGreaterThan(25);
    }
  });

  it("come whole over UDP when the client can take them, and always over TCP", async () => {
    const lab = labWith([], large());
    const udp = await lab.ask("crowd", "A", "udp", edns(4096));
    const tcp = await lab.ask("crowd", "A", "tcp");
    for (const { flag_tc: cut, answers } of [udp, tcp]) {
      expect([cut, answers?.length]).toEqual([false, endpoints]);
    }
  });

  it("repeat the client's EDNS, at least 512 bytes of it", async () => {
    const lab = labWith([]);
    for (const [said, repeated] of [
      [100, 512],
      [4096, 4096],
    ] as const) {
      const { additionals } = await lab.ask("web", "A", "udp", edns(said));
      expect(additionals).toMatchObject([
        { type: "OPT", udpPayloadSize: repeated, ednsVersion: 0, flag_do: true },
      ]);
    }
    expect((await lab.ask("web")).additionals).toEqual([]);
  });
});

describe("queries that are none", () => {
  const good = packet.encode({ type: "query", id: 5, questions: [{ type: "A", name: "web" }] });
  const withFlags = (flags: number) => {
    const message = Buffer.from(good);
    message.writeUInt16BE(flags, 2);
    return message;
  };
  const withCount = (count: number) => {
    const message = Buffer.from(good);
    message.writeUInt16BE(count, 4);
    return message;
  };

  it.each<[string, Buffer, number]>([
    ["a response", withFlags(0x8000), 1],
    ["an update", withFlags(0x2800), 4],
    ["a notify", withFlags(0x2000), 4],
    ["no question", withCount(0), 1],
    ["two questions", withCount(2), 1],
    ["a name that is cut off", good.subarray(0, 14), 1],
    ["a question that is cut off", good.subarray(0, good.length - 1), 1],
    [
      "a compressed name",
      Buffer.concat([good.subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])]),
      1,
    ],
  ])("%s is answered with an error", async (_, message, rcode) => {
    const lab = labWith([]);
    for (const transport of TRANSPORTS) {
      const answer = await lab.exchange(message, transport);
      expect(answer.readUInt16BE(0)).toBe(5);
      expect(answer[2]! & 0x80).toBe(0x80);
      expect(answer[3]! & 0x0f).toBe(rcode);
    }
  });

  it("too few bytes for a header get no answer, and disturb nobody", async () => {
    const lab = labWith([]);
    const socket = net.connect(10_053, lab.ip);
    const received: Buffer[] = [];
    const messages = new TcpMessages((message) => received.push(message));
    socket.on("data", (chunk: Buffer) => messages.push(chunk));
    socket.write(Buffer.concat([frameTcp(Buffer.alloc(11)), frameTcp(good)]));
    await once(socket, "data");
    expect(received.map((message) => message.readUInt16BE(0))).toEqual([5]);
    socket.destroy();
  });
});

it("several queries on one TCP connection are each answered", async () => {
  const upstream = await upstreamThat(NXDOMAIN);
  const lab = labWith([upstream]);
  const socket = net.connect(10_053, lab.ip);
  const ids = [1, 2, 3, 4, 5, 6];
  const received = new Set<number>();
  const all = new Promise<void>((resolve) => {
    const messages = new TcpMessages((message) => {
      received.add(message.readUInt16BE(0));
      if (received.size === ids.length) resolve();
    });
    socket.on("data", (chunk: Buffer) => messages.push(chunk));
  });
  const frames = ids.map((id) => {
    const name = id % 2 ? "web" : "else.example";
    return frameTcp(packet.encode({ type: "query", id, questions: [{ type: "A", name }] }));
  });
  const stream = Buffer.concat(frames);
  socket.write(stream.subarray(0, 20));
  socket.write(stream.subarray(20));
  await all;
  expect(received).toEqual(new Set(ids));
  socket.destroy();
});

describe("a pod that the control plane does not know", () => {
  it("hears SERVFAIL once that is certain", async () => {
    const lab = labWith([], new TestMesh());
    const asked = lab.ask("web");
    await lab.context.clock.advance(0);
    for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
    await lab.context.clock.advance(5_000);
    expect((await asked).rcode).toBe("SERVFAIL");
  });

  it("is answered as soon as it is known", async () => {
    const known = new TestMesh().service("web", ["10.96.0.1"]);
    const lab = labWith([], known);
    const asked = lab.ask("web");
    for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
    known.workload("client", ["10.0.0.1"]);
    expect((await asked).answers).toMatchObject([{ data: "10.96.0.1" }]);
  });

  it("may not fill our memory while it waits", async () => {
    const lab = labWith([], new TestMesh());
    const message = (id: number) =>
      frameTcp(packet.encode({ type: "query", id, questions: [{ type: "A", name: "web" }] }));
    const socket = net.connect(10_053, lab.ip);
    const rcodes: number[] = [];
    const first = new Promise<void>((resolve) => {
      const messages = new TcpMessages((answer) => {
        rcodes.push(answer[3]! & 0x0f);
        resolve();
      });
      socket.on("data", (chunk: Buffer) => messages.push(chunk));
    });
    for (let id = 0; id <= QUERIES_IN_FLIGHT_MAX; id++) socket.write(message(id));
    await first;
    expect(rcodes).toEqual([2]);
    socket.destroy();
  });
});

describe("telemetry", () => {
  const SOURCE = { source_canonical_service: "shop", source_canonical_revision: "v2" };
  const labels = (request_query_type: string, request_protocol: Transport) => ({
    request_query_type,
    request_protocol,
    ...SOURCE,
  });
  const valuesOf = (families: readonly MetricFamily[], name: string) =>
    families.find((family) => family.name === name)?.values;

  it("counts requests, those forwarded, their failures and their time", async () => {
    const upstream = await upstreamThat(NXDOMAIN);
    const lab = labWith([upstream]);
    await lab.ask("web", "A", "udp");
    await lab.ask("web", "AAAA", "tcp");
    await lab.ask("else.example", "A", "udp");
    await lab.ask("else.example", "TXT", "tcp");
    const families = lab.context.dns.collect();
    expect(valuesOf(families, "istio_dns_requests")).toEqual([
      { labels: labels("a", "udp"), value: 2 },
      { labels: labels("aaaa", "tcp"), value: 1 },
      { labels: labels("txt", "tcp"), value: 1 },
    ]);
    expect(valuesOf(families, "istio_dns_upstream_requests")).toEqual([
      { labels: labels("a", "udp"), value: 1 },
      { labels: labels("txt", "tcp"), value: 1 },
    ]);
    expect(valuesOf(families, "istio_dns_upstream_failures")).toBeUndefined();
    const duration = "istio_dns_upstream_request_duration_seconds";
    const samples = valuesOf(families, duration)!.filter(
      ({ labels: { request_query_type: type } }) => type === "a",
    );
    expect(samples.map(({ metricName, labels: { le } }) => [metricName, le])).toEqual([
      ...["0.0005", "0.001", "0.01", "0.1", "1", "5", "+Inf"].map((le) => [
        `${duration}_bucket`,
        le,
      ]),
      [`${duration}_sum`, undefined],
      [`${duration}_count`, undefined],
    ]);
    expect(samples.at(-1)).toMatchObject({ value: 1 });
  });

  it("counts failures to forward", async () => {
    const lab = labWith([]);
    await lab.ask("else.example");
    const families = lab.context.dns.collect();
    const failures = valuesOf(families, "istio_dns_upstream_failures");
    expect(failures).toEqual([{ labels: labels("a", "udp"), value: 1 }]);
  });

  it("writes a line for each query to who asks for debug", async () => {
    const upstream = await upstreamThat(NXDOMAIN);
    const lab = labWith([upstream]);
    await lab.ask("web", "A");
    await lab.ask("web", "AAAA");
    await lab.ask("else.example", "A");
    const own = { scope: "dns", level: "debug", "src.workload": "client", "src.namespace": "ns" };
    expect(lab.context.lines()).toMatchObject([
      { ...own, query: "A", domain: "web", result: "success", endpoints: 1 },
      { ...own, query: "AAAA", domain: "web", result: "no records", endpoints: 0 },
      { ...own, query: "A", domain: "else.example", result: "forwarded", endpoints: 0 },
    ]);
  });
});
