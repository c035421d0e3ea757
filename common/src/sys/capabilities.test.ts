import { describe, expect, it } from "vitest";
import { missingCapabilities } from "./capabilities.ts";

const status = (hex: string) => `Name:\tnode\nCapPrm:\t000001ffffffffff\nCapEff:\t${hex}\n`;

describe("capabilities", () => {
  it.each([
    ["000001ffffffffff", []],
    ["0000000000000000", ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]],
    ["0000000000001000", ["CAP_SYS_ADMIN"]],
    ["0000000000200000", ["CAP_NET_ADMIN"]],
  ])("with CapEff %s lack %j", (hex, missing) => {
    expect(missingCapabilities(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"], status(hex))).toEqual(missing);
  });

  it("are all missing when the kernel does not tell", () => {
    expect(missingCapabilities(["CAP_NET_RAW"], "")).toEqual(["CAP_NET_RAW"]);
  });
});
