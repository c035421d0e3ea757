// Identifying: which workload a pod's listener belongs to. The namespace decides, never an address.

import type { Workload } from "../state/workload.ts";
import type { Pod, ProxyContext } from "./context.ts";
import { drainError, ProxyError } from "./proxy-error.ts";

/** A pod may start talking before the control plane told us of it (ztunnel §3.1 step 0). */
const WORKLOAD_WAIT_MS = 5_000;

interface Remembered {
  readonly version: number;
  readonly workload: Workload;
}

/** The answer holds until the state changes: a look-up would scan all workloads. */
const remembered = new WeakMap<Pod, Remembered>();

/** The pod's workload as xDS knows it, waiting a little for it. Rejects with why there is none. */
export async function identify(context: ProxyContext, pod: Pod): Promise<Workload> {
  return knownWorkload(context, pod) ?? (await waitForWorkload(context, pod));
}

/** The same without waiting. */
export function knownWorkload({ state, config }: ProxyContext, pod: Pod): Workload | undefined {
  const before = remembered.get(pod);
  if (before?.version === state.version) return before.workload;
  const workload = state.workloadOfPod(pod.info, config.nodeName);
  if (workload !== undefined) remembered.set(pod, { version: state.version, workload });
  return workload;
}

function waitForWorkload(context: ProxyContext, pod: Pod): Promise<Workload> {
  return new Promise((resolve, reject) => {
    const { forced } = pod.drain;
    const stop = () => {
      timer.cancel();
      unsubscribe();
      forced.removeEventListener("abort", onForced);
    };
    const onForced = () => {
      stop();
      reject(drainError(pod.drain.mode));
    };
    const unsubscribe = context.state.onChange(() => {
      const workload = knownWorkload(context, pod);
      if (workload === undefined) return;
      stop();
      resolve(workload);
    });
    const timer = context.clock.after(WORKLOAD_WAIT_MS, () => {
      stop();
      reject(unknownPod(pod));
    });
    forced.addEventListener("abort", onForced);
    if (forced.aborted) onForced();
  });
}

function unknownPod({ info: { namespace, name } }: Pod): ProxyError {
  const seconds = WORKLOAD_WAIT_MS / 1000;
  return new ProxyError(
    "UNKNOWN_SOURCE",
    `pod ${namespace}/${name} is not known to the control plane (waited ${seconds} s)`,
  );
}
