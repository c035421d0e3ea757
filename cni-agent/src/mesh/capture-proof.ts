// The proof that a pod is captured: a connection made in the pod's own namespace, as its applications
// would make it, that only redirection can bring to ztunnel. One per address family the pod has.

import type net from "node:net";
import {
  CAPTURE_ANSWER_BYTES_MAX,
  captureAnswer,
  captureProbeTarget,
} from "@ambit/common/net/capture-probe.ts";
import { type IpFamily, ipFamily } from "@ambit/common/net/ip.ts";
import { errorCode, errorMessage } from "@ambit/common/process/errors.ts";
import type { NetnsHandle } from "@ambit/common/sys/netns.ts";
import { connectTcp } from "@ambit/common/sys/sockets.ts";
import { AgentError } from "../errors.ts";
import type { PodView } from "./pod-view.ts";

/** The way is inside one namespace: ten times what a busy ztunnel takes. */
const CONNECT_TIMEOUT_MS = 1_000;
const ANSWER_TIMEOUT_MS = 1_000;

/** Sees to it that the pod's traffic really reaches ztunnel. */
export interface CaptureProver {
  /** Resolves when proven, rejects with AgentError capture-unproven. */
  prove(pod: PodView, netns: NetnsHandle, ipv6: boolean): Promise<void>;
}

/**
 * Probes every family. `answers` tells whether the node's ztunnel answers probes: Istio's does not,
 * and then a connection that is accepted is the proof: nobody else could accept it.
 */
export class ProbeProver implements CaptureProver {
  readonly #answers: () => boolean;

  constructor(answers: () => boolean) {
    this.#answers = answers;
  }

  async prove(pod: PodView, netns: NetnsHandle, ipv6: boolean): Promise<void> {
    const families = new Set(pod.ips.map(ipFamily));
    if (!ipv6) families.delete(6);
    const probed = await Promise.all(
      [...families].map((family) => this.#probe(pod, netns, family)),
    );
    if (families.size > 0 && !probed.includes("captured")) {
      throw unproven("the pod has no route to anywhere, so nothing can be captured yet");
    }
  }

  async #probe(
    pod: PodView,
    netns: NetnsHandle,
    family: IpFamily,
  ): Promise<"captured" | "no-route"> {
    const socket = await connect(netns, family);
    if (socket === undefined) return "no-route";
    try {
      if (!this.#answers()) return "captured";
      const answer = await readAnswer(socket);
      if (answer === captureAnswer(pod.uid)) return "captured";
    } finally {
      socket.destroy();
    }
    throw unproven(`IPv${family}: what took the probe is not this pod's ztunnel`);
  }
}

/** Undefined when the pod could not send to such an address at all, captured or not. */
async function connect(netns: NetnsHandle, family: IpFamily): Promise<net.Socket | undefined> {
  const destination = captureProbeTarget(family);
  try {
    const dialed = await connectTcp(netns.fd, { destination, timeoutMs: CONNECT_TIMEOUT_MS });
    return dialed.socket;
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENETUNREACH" || code === "EADDRNOTAVAIL") return undefined;
    if (code === "ECONNREFUSED") throw unproven("captured, but no ztunnel listens in the pod");
    const detail = errorMessage(error);
    throw unproven(`IPv${family} traffic does not reach ztunnel: ${detail}`, error);
  }
}

/** What came before the end, or before it was too much or too late. */
function readAnswer(socket: net.Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const done = () => {
      clearTimeout(timer);
      resolve(text);
    };
    const timer = setTimeout(done, ANSWER_TIMEOUT_MS);
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (text.length > CAPTURE_ANSWER_BYTES_MAX) done();
    });
    socket.once("error", done);
    socket.once("close", done);
    socket.once("end", done);
    socket.resume();
  });
}

function unproven(message: string, cause?: unknown): AgentError {
  return new AgentError("capture-unproven", message, cause);
}
