import dgram from "node:dgram";
import { once } from "node:events";
import dnsPacket, { type Answer } from "dns-packet";
import { afterEach, describe, expect, it } from "vitest";
import { parseIp } from "@ambit/common/net/ip.ts";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import {
  HostNames,
  LOOKUP_TIMEOUT_MS,
  LOOKUPS_MAX,
  type NameAnswer,
  NAMES_KEPT_MAX,
  systemLookup,
} from "./host-names.ts";

const answer = (ttlSeconds: number, ...ips: string[]): NameAnswer => ({
  ips: ips.map((ip) => parseIp(ip)!),
  ttlSeconds,
});

/** Names answered by hand or at once; every question is noted. */
function setUp(respond: (name: string) => NameAnswer | Promise<NameAnswer>, random = 0) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const names = new HostNames(
    clock,
    () => random,
    async (name) => {
      asked.push(name);
      return respond(name);
    },
  );
  return { clock, asked, names };
}

describe("the address of a hostname", () => {
  it.each([
    [4, 0, "10.0.0.1"],
    [4, 0.9, "10.0.0.2"],
    [6, 0, "fd00::1"],
  ] as const)(
    "is of the family that was dialed (%i), by chance (%d)",
    async (family, random, ip) => {
      const { names } = setUp(() => answer(60, "10.0.0.1", "fd00::1", "10.0.0.2"), random);
      expect(await names.find("web.example", family)).toBe(ip);
    },
  );

  it("is of the other family when there is none", async () => {
    const { names } = setUp(() => answer(60, "10.0.0.1"));
    expect(await names.find("web.example", 6)).toBe("10.0.0.1");
  });

  it("is the name itself when that is an address", async () => {
    const { names, asked } = setUp(() => answer(60));
    expect(await names.find("10.0.0.9", 4)).toBe("10.0.0.9");
    expect(asked).toEqual([]);
  });

  it.each([
    ["nothing", () => answer(60), /web\.example does not resolve: it has no address/],
    ["an error", () => Promise.reject(new Error("ENOTFOUND")), /does not resolve: ENOTFOUND/],
  ])("is refused when the answer is %s", async (_, respond, message) => {
    const { names } = setUp(respond);
    const found = names.find("web.example", 4);
    await expect(found).rejects.toMatchObject({ code: "CONNECT_FAILED" });
    await expect(found).rejects.toThrow(message);
  });

  it("is waited for at most five seconds", async () => {
    const { names, clock } = setUp(() => new Promise(() => undefined));
    const found = expect(names.find("web.example", 4)).rejects.toThrow(/no answer within 5 s/);
    await clock.advance(LOOKUP_TIMEOUT_MS);
    await found;
    expect(clock.pendingTimers).toBe(0);
  });
});

describe("an answer", () => {
  it("is kept for as long as it says, and a failure is not kept", async () => {
    let respond = (): NameAnswer => {
      throw new Error("down");
    };
    const { names, clock, asked } = setUp(() => respond());
    await expect(names.find("web.example", 4)).rejects.toThrow(/down/);
    respond = () => answer(60, "10.0.0.1");
    await names.find("web.example", 4);
    await clock.advance(59_999);
    await names.find("web.example", 4);
    expect(asked.length).toBe(2);
    respond = () => answer(0, "10.0.0.2");
    await clock.advance(1);
    expect(await names.find("web.example", 4)).toBe("10.0.0.2");
    expect(await names.find("web.example", 4)).toBe("10.0.0.2");
    expect(asked.length).toBe(3);
  });

  it("is shared by all who ask while it is on its way", async () => {
    const pending = Promise.withResolvers<NameAnswer>();
    const { names, asked } = setUp(() => pending.promise);
    const all = Promise.all([1, 2, 3].map(() => names.find("web.example", 4)));
    pending.resolve(answer(60, "10.0.0.1"));
    expect(await all).toEqual(["10.0.0.1", "10.0.0.1", "10.0.0.1"]);
    expect(asked).toEqual(["web.example"]);
  });
});

describe("what is kept and asked is bounded", () => {
  it("the oldest name is forgotten", async () => {
    const { names, asked } = setUp(() => answer(60, "10.0.0.1"));
    for (let i = 0; i < NAMES_KEPT_MAX; i++) await names.find(`n${i}.example`, 4);
    await names.find("n0.example", 4);
    expect(asked.length).toBe(NAMES_KEPT_MAX);
    await names.find("one-more.example", 4);
    await names.find("n1.example", 4);
    expect(asked.length).toBe(NAMES_KEPT_MAX + 1);
    await names.find("n0.example", 4);
    expect(asked.length).toBe(NAMES_KEPT_MAX + 2);
  });

  it("one more lookup than the limit is refused", async () => {
    const { names, asked } = setUp(() => new Promise(() => undefined));
    for (let i = 0; i < LOOKUPS_MAX; i++)
      void names.find(`n${i}.example`, 4).catch(() => undefined);
    await expect(names.find("one-more.example", 4)).rejects.toThrow(/256 other names/);
    expect(asked.length).toBe(LOOKUPS_MAX);
  });
});

describe("a real DNS server", () => {
  let server: dgram.Socket;
  afterEach(() => server.close());

  async function serving(records: Record<string, Answer[]>): Promise<string> {
    server = dgram.createSocket("udp4");
    server.on("message", (message, { port, address }) => {
      const { id, questions } = dnsPacket.decode(message);
      const { name, type } = questions![0]!;
      const answers = (records[name] ?? []).filter((record) => record.type === type);
      const rcode = name in records ? 0 : 3;
      const flags = dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE | rcode;
      server.send(
        dnsPacket.encode({ type: "response", id: id!, flags, questions: questions!, answers }),
        port,
        address,
      );
    });
    server.bind(0, "127.0.0.1");
    await once(server, "listening");
    return `127.0.0.1:${server.address().port}`;
  }

  it("is asked for both families; the shortest life counts", async () => {
    const lookup = systemLookup([
      await serving({
        "web.example": [
          { type: "A", name: "web.example", ttl: 300, data: "10.0.0.1" },
          { type: "AAAA", name: "web.example", ttl: 20, data: "fd00::1" },
        ],
      }),
    ]);
    expect(await lookup("web.example")).toEqual({ ips: ["10.0.0.1", "fd00::1"], ttlSeconds: 20 });
  });

  it("may have only one family, or nothing", async () => {
    const lookup = systemLookup([
      await serving({
        "six.invalid": [{ type: "AAAA", name: "six.invalid", ttl: 5, data: "fd00::6" }],
      }),
    ]);
    expect(await lookup("six.invalid")).toEqual({ ips: ["fd00::6"], ttlSeconds: 5 });
    await expect(lookup("ghost.invalid")).rejects.toThrow();
  });

  it("is not asked for what the hosts file knows", async () => {
    let asked = 0;
    const lookup = systemLookup([await serving({})]);
    server.on("message", () => asked++);
    expect((await lookup("localhost")).ips).toContain("127.0.0.1");
    expect(asked).toBe(0);
  });
});
