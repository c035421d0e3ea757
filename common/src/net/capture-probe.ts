// How the node agent proves that a pod's traffic is captured. From inside the pod it calls an address
// that belongs to nobody; ztunnel gets the call only by redirection, and answers with the pod in whose
// namespace it arrived. What both sides must agree on is here. Pure.

import { type Ip, type IpFamily, ipFamily } from "./ip.ts";
import type { SocketAddress } from "./socket-address.ts";

/** Next to the addresses that kubelet's probes come from (Istio's 169.254.7.127), never routed. */
const TARGET_IPS = {
  4: "169.254.7.128" as Ip,
  6: "fd16:9254:7127:1337:ffff:ffff:ffff:fffe" as Ip,
} as const;

const TARGET_PORT = 15_007;

/** A uid and a word: whoever sends more is not ztunnel. */
export const CAPTURE_ANSWER_BYTES_MAX = 256;

export function captureProbeTarget(family: IpFamily): SocketAddress {
  return { ip: TARGET_IPS[family], port: TARGET_PORT };
}

export function isCaptureProbe({ ip, port }: SocketAddress): boolean {
  return port === TARGET_PORT && ip === TARGET_IPS[ipFamily(ip)];
}

/** The whole answer for a pod, by its Kubernetes uid; ztunnel closes after it. */
export function captureAnswer(podUid: string): string {
  return `captured ${podUid}\n`;
}
