import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseProbeSet, renderProbeSet } from "./ipset.ts";
import { compareTables, parseListing, renderChange } from "./iptables-ruleset.ts";
import { hostXtTable, podXtTables, type XtTable } from "./iptables-tables.ts";
import type { Ip } from "@ambit/common/net/ip.ts";

const ALL = { dnsCapture: true, inboundCapture: true, virtualInterfaces: [], ipv6: true };

/** What iptables-save would print, given restore's input on top of nothing. */
function saved(tables: readonly XtTable[]): string {
  return renderChange(parseListing(""), tables).replaceAll(/^-I (\S+) 1 /gm, "-A $1 ");
}

/** The built-in chains that every listing names. */
const BUILT_IN = ":PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n";
const listed = (tables: readonly XtTable[]) =>
  parseListing(saved(tables).replaceAll(/^(\*\w+\n)/gm, `$1${BUILT_IN}`));

const OTHERS = "-m mark ! --mark 0x539/0xfff";
const AWAY = "! -d 127.0.0.1/32";
const BEGINS = "--tcp-flags FIN,SYN,RST,ACK SYN";
const RESTORE = "CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff";
const withoutComments = (text: string) => text.replaceAll(/-m comment --comment "[^"]*" /g, "");

describe("a pod's rules", () => {
  it("are Istio's, in its order, for connections that begin", () => {
    expect(withoutComments(saved(podXtTables(ALL, 4)))).toBe(`*raw
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_PRERT -p udp -m mark ! --mark 0x539/0xfff -m udp --sport 53 -j CT --zone 1
-A ISTIO_OUTPUT -p udp -m mark --mark 0x539/0xfff -m udp --dport 53 -j CT --zone 1
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
COMMIT
*mangle
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j ${RESTORE}
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
COMMIT
*nat
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_PRERT -s 169.254.7.127 -p tcp -m tcp -j ACCEPT
-A ISTIO_PRERT ${AWAY} -p tcp -m tcp ! --dport 15008 ${BEGINS} ${OTHERS} -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -d 169.254.7.127 -p tcp -m tcp -j ACCEPT
-A ISTIO_OUTPUT ! -o lo -p udp -m udp --dport 53 ${OTHERS} -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT ${AWAY} -p tcp -m tcp --dport 53 ${BEGINS} ${OTHERS} -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ${AWAY} -o lo -j ACCEPT
-A ISTIO_OUTPUT ${AWAY} -p tcp -m tcp ${BEGINS} ${OTHERS} -j REDIRECT --to-ports 15001
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
COMMIT
`);
  });

  it("have neither DNS nor inbound where these are not captured", () => {
    const text = saved(podXtTables({ ...ALL, dnsCapture: false, inboundCapture: false }, 6));
    expect(text).not.toMatch(/15053|15006|\*raw|-s fd16/);
    expect(text).toContain("15001");
  });

  it("send what comes by a virtual interface outbound, before all else", () => {
    const text = withoutComments(saved(podXtTables({ ...ALL, virtualInterfaces: ["tap0"] }, 4)));
    expect(text)
      .toContain(`-A ISTIO_PRERT -i tap0 -p tcp -m tcp ${BEGINS} -j REDIRECT --to-ports 15001
-A ISTIO_PRERT -i tap0 -p tcp -j RETURN
-A ISTIO_PRERT -s 169.254.7.127`);
  });
});

describe("comparing", () => {
  const wanted = podXtTables(ALL, 4);
  const text = saved(wanted).replaceAll(/^(\*\w+\n)/gm, `$1${BUILT_IN}`);
  const state = (changed: string) => compareTables(parseListing(changed), wanted);

  it("calls its own rules ok, and nothing absent", () => {
    expect(state(text)).toBe("ok");
    expect(state("")).toBe("absent");
    expect(compareTables(parseListing(""), [])).toBe("ok");
    expect(compareTables(parseListing(text), [])).toBe("drifted");
  });

  it.each([
    ["a missing rule", text.replace(/-A ISTIO_OUTPUT -m comment --comment "self.*\n/, "")],
    ["a rule more", text.replace("COMMIT", "-A ISTIO_PRERT -j ACCEPT\nCOMMIT")],
    ["a missing jump", text.replace("-A OUTPUT -j ISTIO_OUTPUT\n", "")],
    ["a second jump", text.replace("-A OUTPUT", "-A OUTPUT -j ISTIO_OUTPUT\n-A OUTPUT")],
    ["a rule before the jump", text.replace("-A OUTPUT", "-A OUTPUT -j ACCEPT\n-A OUTPUT")],
    ["a missing table", text.slice(text.indexOf("*mangle"))],
    ["a table more", `${text.replaceAll("*nat", "*raw")}${text}`.replace("*raw", "*filter")],
    ["an unknown chain of our name", text.replace("*nat\n", "*nat\n:ISTIO_POSTRT - [0:0]\n")],
  ])("tells %s", (name, changed) => {
    expect(state(changed)).toBe(name === "a table more" ? "ok" : "drifted");
  });

  it("reads listings with counters", () => {
    expect(state(text.replaceAll(/^-A/gm, "[12:3456] -A"))).toBe("ok");
  });
});

describe("a change", () => {
  it("replaces what an earlier agent left: same chains, plain jumps", () => {
    const listing = parseListing(
      `*nat\n${BUILT_IN}:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n`,
    );
    const script = renderChange(listing, podXtTables(ALL, 4));
    expect(script).toContain("*nat\n-D OUTPUT -j ISTIO_OUTPUT\n:ISTIO_PRERT");
    expect(script).toContain("-I OUTPUT 1 -j ISTIO_OUTPUT\nCOMMIT");
  });

  it("takes capture out first and marks last", () => {
    const script = renderChange(listed(podXtTables(ALL, 4)), []);
    expect(script.match(/^\*\w+/gm)).toEqual(["*nat", "*mangle", "*raw"]);
    expect(script).toContain("-D OUTPUT -j ISTIO_OUTPUT\n:ISTIO_PRERT - [0:0]\n");
    expect(script).toContain("-X ISTIO_OUTPUT\nCOMMIT");
    expect(renderChange(parseListing(""), [])).toBe("");
  });

  it("never names a chain that is not ours", () => {
    const others = `*nat\n${BUILT_IN}:DOCKER - [0:0]\n-A OUTPUT -j DOCKER\n-A DOCKER -j RETURN\n`;
    expect(renderChange(parseListing(others), podXtTables(ALL, 4))).not.toContain("DOCKER");
    expect(renderChange(parseListing(others), [])).toBe("");
  });

  it("on top of any listing leads to what is wanted, and again is the same", () => {
    const flags = fc.record({
      dnsCapture: fc.boolean(),
      inboundCapture: fc.boolean(),
      virtualInterfaces: fc.constantFrom<string[]>([], ["tap0"], ["br-0", "tap0"]),
      ipv6: fc.constant(true),
    });
    fc.assert(
      fc.property(flags, flags, fc.constantFrom(4, 6), (before, after, family) => {
        const same = compareTables(listed(podXtTables(before, family)), podXtTables(after, family));
        expect(same === "ok").toBe(
          before.dnsCapture === after.dnsCapture &&
            before.inboundCapture === after.inboundCapture &&
            before.virtualInterfaces.join() === after.virtualInterfaces.join(),
        );
      }),
    );
  });
});

describe("the node's exemption", () => {
  it("is for sockets of the node, or of one user", () => {
    const rule = (uid: number | undefined) => hostXtTable(4, uid).chains[0]!.rules[0]!.text;
    expect(rule(undefined)).toBe(
      "-m owner --socket-exists -p tcp -m set --match-set istio-inpod-probes-v4 dst" +
        " -j SNAT --to-source 169.254.7.127",
    );
    expect(rule(0)).toContain("--uid-owner 0 ");
  });

  it("fills a set beside the old one, and reads back what ipset saves", () => {
    const targets = new Map([
      ["10.0.0.1" as Ip, { uid: "uid-1" }],
      ["fd00::1" as Ip, { uid: 'uid"2\n' }],
    ]);
    expect(renderProbeSet(targets, 4))
      .toBe(`create istio-inpod-probes-v4 hash:ip family inet comment -exist
create istio-inpod-probes-v4-next hash:ip family inet comment -exist
flush istio-inpod-probes-v4-next
add istio-inpod-probes-v4-next 10.0.0.1 comment "uid-1" -exist
swap istio-inpod-probes-v4-next istio-inpod-probes-v4
destroy istio-inpod-probes-v4-next
`);
    const added = [4, 6].flatMap((family) =>
      renderProbeSet(targets, family as 4 | 6)
        .split("\n")
        .filter((line) => line.startsWith("add"))
        .map((line) => line.replace(" -exist", "")),
    );
    expect([...parseProbeSet(added.join("\n"))]).toEqual([
      ["10.0.0.1", { uid: "uid-1" }],
      ["fd00::1", { uid: "uid_2_" }],
    ]);
  });
});
