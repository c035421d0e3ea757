// Says how the node's pods are captured, and why not by eBPF: one log line, and the node's condition, each
// time that changes. The metric is read when it is asked for.

import { isDeepStrictEqual } from "node:util";
import { errorMessage } from "@ambit/common/process/errors.ts";
import type { ResourceWriter } from "@ambit/common/resources/source.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import type { Choice } from "../rules/redirection-choice.ts";
import { writeNodeCondition } from "./node-condition.ts";

export interface ReporterOptions {
  readonly writer: ResourceWriter;
  readonly nodeName: string;
  readonly log: Logger;
}

export class RedirectionReporter {
  readonly #options: ReporterOptions;
  #told: Choice | undefined;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  report(choice: Choice): void {
    if (isDeepStrictEqual(choice, this.#told)) return;
    this.#told = choice;
    const { log, nodeName, writer } = this.#options;
    const { backend, fallback } = choice;
    if (fallback === undefined) log.info("pods are captured", { by: backend });
    else {
      const { check, message } = fallback;
      const text = backend === "ebpf" ? "pods cannot be served" : "pods are captured, not by eBPF";
      log.warn(text, { by: backend, check, reason: message });
    }
    writeNodeCondition(writer, nodeName, choice).catch((error: unknown) =>
      log.warn("cannot write the node's condition", { error: errorMessage(error) }),
    );
  }
}
