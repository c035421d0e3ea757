// Answers one query of a pod: from what the mesh owns, or from an upstream, bit for bit. Tells metrics and
// log. Knows no sockets of the pod.

import { errorMessage } from "@ambit/common/process/errors.ts";
import type { Pod, ProxyContext } from "../proxy/context.ts";
import { identify, knownWorkload } from "../proxy/identify.ts";
import type { Workload } from "../state/workload.ts";
import type { DnsEvent } from "../telemetry/dns-telemetry.ts";
import { encodeAnswer, encodeError } from "./answer.ts";
import type { Forwarder } from "./forward.ts";
import { CLASS_IN, parseQuery, type Question, Rcode, RecordType } from "./query.ts";
import { type LocalAnswer, lookupSettings, resolveLocally } from "./resolve.ts";

/** Queries of one pod being answered; a burst of a busy application is some tens. */
export const QUERIES_IN_FLIGHT_MAX = 1_024;

export type Transport = "udp" | "tcp";

export interface AnswererOptions {
  readonly context: ProxyContext;
  readonly pod: Pod;
  readonly forwarder: Forwarder;
  /** The search list of our own resolv.conf: the pod's when it is the one we run with. */
  readonly ownSearchDomains: readonly string[];
}

export class Answerer {
  readonly #options: AnswererOptions;
  #inFlight = 0;

  constructor(options: AnswererOptions) {
    this.#options = options;
  }

  /** The answer to one query, ours or an upstream's; undefined for what is no DNS message. */
  async answer(query: Buffer, transport: Transport): Promise<Buffer | undefined> {
    const parsed = parseQuery(query);
    if (parsed === undefined) return undefined;
    if (!parsed.ok) return encodeError(query, parsed.rcode);
    if (this.#inFlight >= QUERIES_IN_FLIGHT_MAX) return encodeError(query, Rcode.SERVFAIL);
    this.#inFlight++;
    try {
      return await this.#answer(parsed.question, transport);
    } finally {
      this.#inFlight--;
    }
  }

  async #answer(question: Question, transport: Transport): Promise<Buffer> {
    if (!isForAddresses(question)) {
      return this.#forward(question, transport, this.#knownClient());
    }
    let client: Workload;
    try {
      client = await identify(this.#options.context, this.#options.pod);
    } catch (error) {
      const result = `unknown source (${errorMessage(error)})`;
      this.#tell(question, transport, { client: undefined, result, endpoints: 0 });
      return encodeError(question.message, Rcode.SERVFAIL);
    }
    const own = this.#resolve(question, client);
    if (own === undefined) return this.#forward(question, transport, client);
    const endpoints = own.addresses.length;
    const result = endpoints > 0 ? "success" : "no records";
    this.#tell(question, transport, { client, result, endpoints });
    return encodeAnswer(question, own, transport);
  }

  #resolve({ name, type }: Question, client: Workload): LocalAnswer | undefined {
    const { context, ownSearchDomains } = this.#options;
    const { config, state, random } = context;
    if (name === undefined) return undefined;
    return resolveLocally(state, {
      ...lookupSettings(config, client, random),
      ...(config.proxyMode === "dedicated" && { searchDomains: ownSearchDomains }),
      name,
      family: type === RecordType.A ? 4 : 6,
    });
  }

  #knownClient(): Workload | undefined {
    return knownWorkload(this.#options.context, this.#options.pod);
  }

  async #forward(
    question: Question,
    transport: Transport,
    client: Workload | undefined,
  ): Promise<Buffer> {
    const { context, forwarder } = this.#options;
    const beganMs = context.clock.monotonicMs();
    const answer = await forwarder.forward(question.message, transport);
    const durationMs = context.clock.monotonicMs() - beganMs;
    const failed = typeof answer === "string";
    this.#tell(question, transport, {
      client,
      result: failed ? `forwarding failed (${answer})` : "forwarded",
      endpoints: failed ? 0 : answerCount(answer),
      upstream: { durationMs, failed },
    });
    return failed ? encodeError(question.message, Rcode.SERVFAIL) : answer;
  }

  #tell(
    { name, type }: Question,
    transport: Transport,
    event: Omit<DnsEvent, "name" | "type" | "transport">,
  ): void {
    this.#options.context.dns.record({ name, type, transport, ...event });
  }
}

function isForAddresses({ type, class: questionClass }: Question): boolean {
  return questionClass === CLASS_IN && (type === RecordType.A || type === RecordType.AAAA);
}

function answerCount(message: Buffer): number {
  return message.length >= 8 ? message.readUInt16BE(6) : 0;
}
