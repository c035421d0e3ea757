// Policy routing over rtnetlink(7), as much of it as sends marked packets to lo: a rule by mark that leads
// to a table, and in it a route that makes every destination local.

import { type Ip, type IpFamily, ipToBytes } from "../net/ip.ts";
import * as linux from "./constants.ts";
import { SystemError } from "./libc.ts";
import {
  attributeNumber,
  decodeAttributes,
  encodeAttribute,
  Netlink,
  NetlinkFlag,
} from "./netlink.ts";

/** linux/rtnetlink.h, linux/fib_rules.h. */
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
const RTPROT_BOOT = 3;
const RTN_LOCAL = 2;
const RT_SCOPE_HOST = 254;
const FR_ACT_TO_TBL = 1;
const RTA_OIF = 4;
const RTA_PREFSRC = 7;
const RTA_TABLE = 15;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_FWMASK = 16;
/** struct rtmsg and struct fib_rule_hdr: both begin with the family. */
const STRUCT_BYTES = 12;
const TABLE_AT = 4;
/** The kernel gives lo this number in every namespace. */
const LOOPBACK_INDEX = 1;
const WHAT = "rtnetlink";

/** Marked packets are routed by a table. */
export interface MarkRule {
  readonly priority: number;
  readonly mark: number;
  readonly mask: number;
  /** Below 256. */
  readonly table: number;
}

/** The policy routing of one namespace, until disposed of. */
export class PolicyRouting implements Disposable {
  readonly #netlink: Netlink;

  /** Throws SystemError. */
  constructor(netnsFd: number | undefined) {
    this.#netlink = new Netlink(netnsFd, linux.NETLINK_ROUTE, WHAT);
  }

  /** Makes every destination of a table local, from `source`, or from whatever there is when it has one. */
  addLocalRoute(family: IpFamily, table: number, source: Ip | undefined, replace: boolean): void {
    const how = replace ? NetlinkFlag.REPLACE : NetlinkFlag.EXCL;
    const body = localRoute(family, table, source);
    this.#change(RTM_NEWROUTE, NetlinkFlag.CREATE | how, body, "EEXIST");
  }

  removeLocalRoute(family: IpFamily, table: number): void {
    this.#change(RTM_DELROUTE, 0, localRoute(family, table, undefined), "ESRCH");
  }

  hasLocalRoute(family: IpFamily, table: number): boolean {
    const routes = this.#dump(RTM_GETROUTE, family);
    return routes.some((body) => {
      const attributes = decodeAttributes(body, STRUCT_BYTES, WHAT);
      const isDefault = body[1] === 0 && body[7] === RTN_LOCAL;
      const device = attributeNumber(attributes.get(RTA_OIF));
      return isDefault && device === LOOPBACK_INDEX && tableOf(body, attributes) === table;
    });
  }

  addRule(family: IpFamily, rule: MarkRule): void {
    const body = markRule(family, rule);
    this.#change(RTM_NEWRULE, NetlinkFlag.CREATE | NetlinkFlag.EXCL, body, "EEXIST");
  }

  removeRule(family: IpFamily, rule: MarkRule): void {
    this.#change(RTM_DELRULE, 0, markRule(family, rule), "ENOENT");
  }

  hasRule(family: IpFamily, { priority, mark, mask, table }: MarkRule): boolean {
    return this.#dump(RTM_GETRULE, family).some((body) => {
      const attributes = decodeAttributes(body, STRUCT_BYTES, WHAT);
      const has = (type: number, value: number) => attributeNumber(attributes.get(type)) === value;
      const matches = has(FRA_PRIORITY, priority) && has(FRA_FWMARK, mark) && has(FRA_FWMASK, mask);
      return matches && tableOf(body, attributes) === table;
    });
  }

  [Symbol.dispose](): void {
    this.#netlink[Symbol.dispose]();
  }

  /** `done`: what the kernel says where it was so before. */
  #change(type: number, flags: number, body: Buffer, done: string): void {
    try {
      this.#netlink.ask(type, NetlinkFlag.ACK | flags, body);
    } catch (error) {
      if (!(error instanceof SystemError && error.code === done)) throw error;
    }
  }

  #dump(type: number, family: IpFamily): Buffer[] {
    const messages = this.#netlink.ask(type, NetlinkFlag.DUMP, header(family));
    return messages.map(({ body }) => body).filter((body) => body.length >= STRUCT_BYTES);
  }
}

function header(family: IpFamily): Buffer {
  const bytes = Buffer.alloc(STRUCT_BYTES);
  bytes[0] = family === 4 ? linux.AF_INET : linux.AF_INET6;
  return bytes;
}

function localRoute(family: IpFamily, table: number, source: Ip | undefined): Buffer {
  const route = header(family);
  route[TABLE_AT] = table;
  route[5] = RTPROT_BOOT;
  route[6] = family === 4 ? RT_SCOPE_HOST : 0;
  route[7] = RTN_LOCAL;
  const preferred = source === undefined ? [] : [encodeAttribute(RTA_PREFSRC, ipToBytes(source))];
  return Buffer.concat([route, encodeAttribute(RTA_OIF, u32(LOOPBACK_INDEX)), ...preferred]);
}

function markRule(family: IpFamily, { priority, mark, mask, table }: MarkRule): Buffer {
  const rule = header(family);
  rule[TABLE_AT] = table;
  rule[7] = FR_ACT_TO_TBL;
  return Buffer.concat([
    rule,
    encodeAttribute(FRA_PRIORITY, u32(priority)),
    encodeAttribute(FRA_FWMARK, u32(mark)),
    encodeAttribute(FRA_FWMASK, u32(mask)),
  ]);
}

/** Tables above 255 are in an attribute, which is the same number for routes and rules. */
function tableOf(body: Buffer, attributes: ReadonlyMap<number, Buffer>): number {
  return attributeNumber(attributes.get(RTA_TABLE)) ?? body[TABLE_AT]!;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
