// Asks nf_tables whether a table is there, without a program that would have to be started for it.

import { errorCode } from "../process/errors.ts";
import * as linux from "./constants.ts";
import { encodeAttribute, Netlink, NetlinkFlag } from "./netlink.ts";

/** linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h. */
const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_GETTABLE = 1;
const NFTA_TABLE_NAME = 1;
const NFPROTO_INET = 1;
/** struct nfgenmsg: family, version, resource. */
const STRUCT_BYTES = 4;

/** Whether a namespace has this table of the family inet. Throws SystemError. */
export function hasInetTable(netnsFd: number | undefined, name: string): boolean {
  using netlink = new Netlink(netnsFd, linux.NETLINK_NETFILTER, "nf_tables");
  const table = Buffer.alloc(STRUCT_BYTES);
  table[0] = NFPROTO_INET;
  const body = Buffer.concat([table, encodeAttribute(NFTA_TABLE_NAME, Buffer.from(`${name}\0`))]);
  try {
    netlink.ask((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETTABLE, NetlinkFlag.ACK, body);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}
