// Readiness probes as a kubelet runs them: from the node's network namespace, or inside the pod for
// commands. One probe per container; owns its timer.

import { spawn } from "node:child_process";
import type { Ip } from "@ambit/common/net/ip.ts";
import type { Clock, Timer } from "@ambit/common/process/clock.ts";
import { openNetns } from "@ambit/common/sys/netns.ts";
import { connectTcp } from "@ambit/common/sys/sockets.ts";
import type { Pod } from "@ambit/api/resources/kinds.ts";
import { httpInNetns } from "../netns-http.ts";
import { namedPort } from "./services.ts";

type Container = Pod["spec"]["containers"][number];
type ProbeSpec = NonNullable<Container["readinessProbe"]>;

/** A pod that is not ready yet is asked this often, so that it serves as soon as it can. */
const UNREADY_PERIOD_MS = 200;

export interface ProbeTarget {
  readonly pod: Pod;
  readonly podIp: Ip;
  /** Path of the node's namespace: probes come from the node. */
  readonly nodeNetns: string;
  /** The command line that runs `argv` inside the pod. */
  inside(argv: readonly string[]): readonly [string, string[]];
}

export class ReadinessProbe {
  readonly #spec: ProbeSpec;
  readonly #target: ProbeTarget;
  readonly #clock: Clock;
  readonly #onChange: (ready: boolean) => void;
  #ready = false;
  #failures = 0;
  #timer: Timer | undefined;
  #stopped = false;

  constructor(
    spec: ProbeSpec,
    target: ProbeTarget,
    clock: Clock,
    onChange: (ready: boolean) => void,
  ) {
    this.#spec = spec;
    this.#target = target;
    this.#clock = clock;
    this.#onChange = onChange;
  }

  get ready(): boolean {
    return this.#ready;
  }

  start(): void {
    this.#schedule(this.#spec.initialDelaySeconds * 1000);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #schedule(delayMs: number): void {
    this.#timer = this.#clock.after(delayMs, () => {
      void probe(this.#spec, this.#target).then((ok) => this.#take(ok));
    });
  }

  #take(ok: boolean): void {
    if (this.#stopped) return;
    this.#failures = ok ? 0 : this.#failures + 1;
    const ready = ok || (this.#ready && this.#failures < this.#spec.failureThreshold);
    if (ready !== this.#ready) {
      this.#ready = ready;
      this.#onChange(ready);
    }
    const periodMs = this.#spec.periodSeconds * 1000;
    this.#schedule(ready ? periodMs : Math.min(periodMs, UNREADY_PERIOD_MS));
  }
}

/** One attempt; never rejects. A probe that names nothing to do succeeds. */
export async function probe(spec: ProbeSpec, target: ProbeTarget): Promise<boolean> {
  const timeoutMs = spec.timeoutSeconds * 1000;
  try {
    if (spec.httpGet !== undefined) return await httpGet(spec.httpGet, target, timeoutMs);
    if (spec.tcpSocket !== undefined) {
      using node = openNetns(target.nodeNetns);
      const destination = { ip: target.podIp, port: portOf(target.pod, spec.tcpSocket.port) };
      const { socket } = await connectTcp(node.fd, { destination, timeoutMs });
      socket.destroy();
      return true;
    }
    return spec.exec === undefined || (await runs(target.inside(spec.exec.command), timeoutMs));
  } catch {
    return false;
  }
}

async function httpGet(
  { path, port }: NonNullable<ProbeSpec["httpGet"]>,
  { pod, podIp, nodeNetns }: ProbeTarget,
  timeoutMs: number,
): Promise<boolean> {
  const target = { netns: nodeNetns, ip: podIp, port: portOf(pod, port) };
  const { status } = await httpInNetns(target, path, { timeoutMs, host: podIp });
  return status >= 200 && status < 400;
}

function portOf(pod: Pod, port: number | string): number {
  const number = typeof port === "number" ? port : namedPort(pod, port);
  if (number === undefined) throw new Error(`no container port is named ${port}`);
  return number;
}

function runs([file, args]: readonly [string, string[]], timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { stdio: "ignore", timeout: timeoutMs, killSignal: "SIGKILL" });
    child.on("error", () => resolve(false));
    child.on("exit", (code) => resolve(code === 0));
  });
}
