// CPU and heap profiles for `/debug/pprof`, in V8's own formats (open them in Chrome's DevTools). One
// thread at a time: by default the first datapath worker, where the traffic is.

import { setTimeout as delay } from "node:timers/promises";
import { Session } from "node:inspector/promises";
import { type HttpReply, jsonReply, textReply } from "@ambit/common/process/http-server.ts";

/** As Istio's bounds (ztunnel §7.3). */
const SECONDS_MAX = 300;
const SECONDS_DEFAULT = 10;
const FREQUENCY_HZ_MAX = 1_000;
const FREQUENCY_HZ_DEFAULT = 100;

/** One sample per so many allocated bytes. */
const HEAP_SAMPLING_BYTES = 32_768;

/** A running measurement of a thread; `stop` gives the profile as JSON text. */
export interface RunningProfile {
  stop(): Promise<string>;
}

export interface ProfiledThreads {
  /** undefined when there is no such worker. */
  startProfile(worker: number, kind: "cpu" | "heap"): Promise<RunningProfile> | undefined;
}

/** `?seconds=1-300&frequency=1-1000&thread=main|0|1…`; workers are sampled at V8's own frequency. */
export function cpuProfile(threads: ProfiledThreads, query: URLSearchParams): Promise<HttpReply> {
  const frequency = Number(query.get("frequency") ?? FREQUENCY_HZ_DEFAULT);
  if (!(frequency >= 1 && frequency <= FREQUENCY_HZ_MAX)) {
    return Promise.resolve(textReply(`frequency must be 1 to ${FREQUENCY_HZ_MAX}\n`, 400));
  }
  return measure(threads, query, "cpu", () => startMainCpuProfile(frequency));
}

/** Allocations sampled for `?seconds=1-300`. */
export function heapProfile(threads: ProfiledThreads, query: URLSearchParams): Promise<HttpReply> {
  return measure(threads, query, "heap", startMainHeapProfile);
}

async function measure(
  threads: ProfiledThreads,
  query: URLSearchParams,
  kind: "cpu" | "heap",
  startMain: () => Promise<RunningProfile>,
): Promise<HttpReply> {
  const seconds = Number(query.get("seconds") ?? SECONDS_DEFAULT);
  if (!(seconds >= 1 && seconds <= SECONDS_MAX)) {
    return textReply(`seconds must be 1 to ${SECONDS_MAX}\n`, 400);
  }
  const thread = query.get("thread") ?? "0";
  const started = thread === "main" ? startMain() : threads.startProfile(Number(thread), kind);
  if (started === undefined) return textReply(`there is no thread ${thread}\n`, 404);
  const running = await started;
  await delay(seconds * 1000);
  const headers = { "content-type": "application/json" };
  return { status: 200, body: await running.stop(), headers };
}

async function startMainCpuProfile(frequencyHz: number): Promise<RunningProfile> {
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: 1_000_000 / frequencyHz });
  await session.post("Profiler.start");
  return {
    stop: async () => {
      const { profile } = await session.post("Profiler.stop");
      session.disconnect();
      return jsonReply(profile).body.toString();
    },
  };
}

async function startMainHeapProfile(): Promise<RunningProfile> {
  const session = new Session();
  session.connect();
  await session.post("HeapProfiler.startSampling", { samplingInterval: HEAP_SAMPLING_BYTES });
  return {
    stop: async () => {
      const { profile } = await session.post("HeapProfiler.stopSampling");
      session.disconnect();
      return jsonReply(profile).body.toString();
    },
  };
}
