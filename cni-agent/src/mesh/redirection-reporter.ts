// Says how the node's pods are captured, and why not by eBPF, and the same of kubelet's probes: one log line, and
// a condition of the node's, each time that changes. The metrics are read when they are asked for.

import { isDeepStrictEqual } from "node:util";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { ResourceWriter } from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { Choice, ProbeChoice } from "../rules/redirection-choice.ts";
import {
  type NodeCondition,
  probesCondition,
  redirectionCondition,
  writeNodeCondition,
} from "./node-condition.ts";

export interface ReporterOptions {
  readonly writer: ResourceWriter;
  readonly nodeName: string;
  readonly log: Logger;
}

export class RedirectionReporter {
  readonly #options: ReporterOptions;
  #told: Choice | undefined;
  #toldProbes: ProbeChoice | undefined;
  /** One write at a time: both conditions are the same object's. */
  #writing: Promise<void> = Promise.resolve();

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  report({ current, probes }: { readonly current: Choice; readonly probes: ProbeChoice }): void {
    this.#reportRedirection(current);
    this.#reportProbes(probes);
  }

  #reportRedirection(choice: Choice): void {
    if (isDeepStrictEqual(choice, this.#told)) return;
    this.#told = choice;
    const { log } = this.#options;
    const { backend, fallback } = choice;
    if (fallback === undefined) log.info("pods are captured", { by: backend });
    else {
      const { check, message } = fallback;
      const text = backend === "ebpf" ? "pods cannot be served" : "pods are captured, not by eBPF";
      log.warn(text, { by: backend, check, reason: message });
    }
    this.#write(redirectionCondition(choice));
  }

  #reportProbes(probes: ProbeChoice): void {
    if (isDeepStrictEqual(probes, this.#toldProbes)) return;
    this.#toldProbes = probes;
    const { by, fallback } = probes;
    const why = fallback && { check: fallback.check, reason: fallback.message };
    this.#options.log.info("probes are known", { by, ...why });
    this.#write(probesCondition(probes));
  }

  #write(condition: NodeCondition): void {
    const { log, nodeName, writer } = this.#options;
    this.#writing = this.#writing
      .then(() => writeNodeCondition(writer, nodeName, condition))
      .catch((error: unknown) =>
        log.warn("cannot write the node's condition", { error: errorMessage(error) }),
      );
  }
}
