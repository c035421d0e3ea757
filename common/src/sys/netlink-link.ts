// What rtnetlink(7) tells of a namespace's network interfaces, as far as it matters who is at the other end of
// a veth and what stands in the way of its packets.

import * as linux from "./constants.ts";
import { SystemError } from "./libc.ts";
import {
  attributeNumber,
  decodeAttributes,
  encodeAttribute,
  Netlink,
  NetlinkFlag,
} from "./netlink.ts";

/** linux/rtnetlink.h, linux/if_link.h, linux/net_namespace.h, linux/pkt_sched.h. */
const RTM_GETLINK = 18;
const RTM_GETQDISC = 38;
const RTM_GETNSID = 90;
const IFLA_LINK = 5;
const IFLA_QDISC = 6;
const IFLA_LINKINFO = 18;
const IFLA_LINK_NETNSID = 37;
const IFLA_XDP = 43;
const IFLA_INFO_KIND = 1;
const IFLA_XDP_ATTACHED = 2;
const IFF_LOOPBACK = 0x8;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;
const NETNSA_NSID_NOT_ASSIGNED = 0xffff_ffff;
const TC_H_INGRESS = 0xffff_fff1;
/** Of every `ingress` and `clsact`: ffff: */
const INGRESS_HANDLE = 0xffff_0000;
/** struct ifinfomsg, struct tcmsg, struct rtgenmsg padded. */
const LINK_BYTES = 16;
const QDISC_BYTES = 20;
const GENERAL_BYTES = 4;
const WHAT = "rtnetlink";

const NOTHING = Buffer.alloc(0);

export interface Link {
  readonly index: number;
  /** `veth`, for instance; undefined for what has no kind. */
  readonly kind: string | undefined;
  readonly isLoopback: boolean;
  /** Of a veth: its other end's index, there. */
  readonly peer: number | undefined;
  /** How the namespace calls the one where the other end is; undefined: it is the same. */
  readonly peerNetns: number | undefined;
  /** What orders its outgoing packets; `noqueue`: nothing. */
  readonly queueing: string | undefined;
  /** An XDP program looks at its packets. */
  readonly hasXdp: boolean;
}

/** The interfaces of one namespace, until disposed of. */
export class Links implements Disposable {
  readonly #netlink: Netlink;

  /** Throws SystemError. */
  constructor(netnsFd: number | undefined) {
    this.#netlink = new Netlink(netnsFd, linux.NETLINK_ROUTE, WHAT);
  }

  all(): Link[] {
    const messages = this.#netlink.ask(RTM_GETLINK, NetlinkFlag.DUMP, Buffer.alloc(LINK_BYTES));
    return messages.flatMap(({ body }) => (body.length < LINK_BYTES ? [] : [decodeLink(body)]));
  }

  /** undefined: there is none with this index. */
  get(index: number): Link | undefined {
    const request = Buffer.alloc(LINK_BYTES);
    request.writeInt32LE(index, 4);
    const answer = this.#askFor(RTM_GETLINK, request, ["ENODEV"]);
    return answer && decodeLink(answer);
  }

  /** Whether filters may be at the interface's packets (an `ingress` or `clsact` qdisc). */
  hasFilters(index: number): boolean {
    const request = Buffer.alloc(QDISC_BYTES);
    request.writeInt32LE(index, 4);
    request.writeUInt32LE(INGRESS_HANDLE, 8);
    request.writeUInt32LE(TC_H_INGRESS, 12);
    // What the kernel says when there is none, and when there was one.
    return this.#askFor(RTM_GETQDISC, request, ["ENOENT", "EINVAL"]) !== undefined;
  }

  /** How this namespace calls another; undefined when it has no name for it. */
  netnsId(otherFd: number): number | undefined {
    const fd = Buffer.alloc(4);
    fd.writeInt32LE(otherFd);
    const request = Buffer.concat([Buffer.alloc(GENERAL_BYTES), encodeAttribute(NETNSA_FD, fd)]);
    const answer = this.#askFor(RTM_GETNSID, request, []);
    const attributes = answer && decodeAttributes(answer, GENERAL_BYTES, WHAT);
    const id = attributeNumber(attributes?.get(NETNSA_NSID));
    return id === NETNSA_NSID_NOT_ASSIGNED ? undefined : id;
  }

  /** Empty when the kernel only says that there is; undefined for errors that say that there is not. */
  #askFor(type: number, body: Buffer, absent: readonly string[]): Buffer | undefined {
    try {
      return this.#netlink.ask(type, NetlinkFlag.ACK, body)[0]?.body ?? NOTHING;
    } catch (error) {
      if (error instanceof SystemError && absent.includes(error.code)) return undefined;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#netlink[Symbol.dispose]();
  }
}

function decodeLink(body: Buffer): Link {
  const attributes = decodeAttributes(body, LINK_BYTES, WHAT);
  const nested = (outer: number, inner: number) => {
    const value = attributes.get(outer);
    return value && decodeAttributes(value, 0, WHAT).get(inner);
  };
  return {
    index: body.readInt32LE(4),
    kind: text(nested(IFLA_LINKINFO, IFLA_INFO_KIND)),
    isLoopback: (body.readUInt32LE(8) & IFF_LOOPBACK) !== 0,
    peer: attributeNumber(attributes.get(IFLA_LINK)),
    peerNetns: attributeNumber(attributes.get(IFLA_LINK_NETNSID)),
    queueing: text(attributes.get(IFLA_QDISC)),
    hasXdp: (nested(IFLA_XDP, IFLA_XDP_ATTACHED)?.[0] ?? 0) !== 0,
  };
}

function text(value: Buffer | undefined): string | undefined {
  return value?.toString("utf8").replace(/\0.*$/, "");
}
