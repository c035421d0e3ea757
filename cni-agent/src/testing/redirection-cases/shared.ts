// What the cases share.

import { once } from "node:events";
import type { Ip } from "@ambit/common/net/ip.ts";
import { connectApp } from "../app-socket.ts";
import { ip, type TestPlace } from "../test-network.ts";

export const FAMILIES = [["ip4"], ["ip6"]] as const;
export const ANY = ip("::");
export const APP_PORT = 8080;

/** The code with which connecting fails. */
export async function refused(place: TestPlace, address: Ip, port: number): Promise<unknown> {
  try {
    const socket = connectApp(place, address, port);
    const [error] = (await once(socket, "error")) as [{ code: string }];
    return error.code;
  } catch (error) {
    return (error as { code: unknown }).code;
  }
}
