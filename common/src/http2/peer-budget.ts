// What one peer may cost: how often it may make us answer or clean up, and how many answers may wait
// for it to read. Every breach ends the connection.

import type { Clock } from "../process/clock.ts";
import { type Http2Limits, RateLimit } from "./limits.ts";
import { ConnectionError, ErrorCode } from "./protocol.ts";

export class PeerBudget {
  readonly #clock: Clock;
  readonly #answerBytesMax: number;
  readonly #control: RateLimit;
  readonly #resets: RateLimit;

  constructor(limits: Http2Limits, clock: Clock) {
    this.#clock = clock;
    this.#answerBytesMax = limits.controlQueueBytesMax;
    this.#control = new RateLimit(limits.controlFramesPerWindowMax);
    this.#resets = new RateLimit(limits.resetsPerWindowMax);
  }

  /** A frame that makes us work or answer; `answerBytes` wait already. Throws ConnectionError. */
  spendControl(answerBytes: number): void {
    if (!this.#control.admit(this.#clock.monotonicMs())) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames");
    }
    if (answerBytes > this.#answerBytesMax) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "the peer does not read its answers");
    }
  }

  /**
   * A stream that the peer reset before it was answered (CVE-2023-44487), or that we reset because the
   * peer broke a rule or opened too many (CVE-2025-8671). Throws ConnectionError.
   */
  spendReset(): void {
    if (!this.#resets.admit(this.#clock.monotonicMs())) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too many resets");
    }
  }
}
