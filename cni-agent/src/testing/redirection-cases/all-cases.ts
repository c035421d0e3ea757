// What every redirection must get right, whichever way it is done: one case list, run against each backend.

import { describe } from "vitest";
import type { RedirectionHarness } from "../redirection-harness.ts";
import { dnsCases } from "./dns-cases.ts";
import { inboundCases } from "./inbound-cases.ts";
import { lifeCases } from "./life-cases.ts";
import { outboundCases } from "./outbound-cases.ts";
import { socketCases } from "./socket-cases.ts";
import { destinationCases } from "./destination-cases.ts";
import { streamCases } from "./stream-cases.ts";

/** Registers all cases; `get` is called inside each test. */
export function redirectionCases(get: () => RedirectionHarness): void {
  describe("outbound", () => outboundCases(get));
  describe("inbound", () => inboundCases(get));
  describe("sockets", () => socketCases(get));
  describe("destinations", () => destinationCases(get));
  describe("DNS", () => dnsCases(get));
  describe("streams", () => streamCases(get));
  describe("life", () => lifeCases(get));
}
