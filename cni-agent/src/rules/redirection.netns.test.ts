import { afterAll, afterEach, beforeAll, describe } from "vitest";
import { redirectionCases } from "../testing/redirection-cases/all-cases.ts";
import {
  ebpfHarness,
  iptablesHarness,
  nftablesHarness,
  type RedirectionHarness,
} from "../testing/redirection-harness.ts";

describe.each([
  ["nftables", nftablesHarness],
  ["iptables-nft", () => iptablesHarness("nft")],
  ["iptables-legacy", () => iptablesHarness("legacy")],
  ["ebpf", ebpfHarness],
] as const)("%s", (_name, create) => {
  let harness: RedirectionHarness;
  beforeAll(() => {
    harness = create();
  });
  afterEach(() => harness.reset());
  afterAll(() => harness.close());
  redirectionCases(() => harness);
});
