import { describe, expect, it } from "vitest";
import { checkBanned, checkShape } from "./tidy.ts";

describe("tidy", () => {
  it("asks for a header comment", () => {
    expect(checkShape("ztunnel/src/a.ts", ["export const a = 1;"])).toMatchObject([{ line: 1 }]);
    expect(checkShape("ztunnel/src/a.ts", ["// What a is.", "export const a = 1;"])).toEqual([]);
  });

  it("asks for kebab-case names", () => {
    expect(checkShape("ztunnel/src/theFile.ts", ["// Header."])[0]?.message).toContain(
      "kebab-case",
    );
  });

  it("allows 500 lines and refuses one more", () => {
    const lines = (count: number) => ["// Header.", ...new Array<string>(count - 1).fill("x();")];
    expect(checkShape("common/src/a.ts", lines(500))).toEqual([]);
    expect(checkShape("common/src/a.ts", lines(501))).toHaveLength(1);
  });

  it("does not count a message into the length of its line", () => {
    const text = "a message that is searched for ".repeat(5);
    expect(checkShape("common/src/a.ts", ["// Header.", `fail("${text}");`])).toEqual([]);
    expect(checkShape("common/src/a.ts", ["// Header.", `fail(${text});`])).toHaveLength(1);
  });

  it("names the place to call instead of a banned one", () => {
    const found = checkBanned("ztunnel/src/a.ts", ['import koffi from "koffi";', "Date.now();"]);
    expect(found.map(({ line, message }) => [line, message])).toEqual([
      [1, "use common/src/sys, the only FFI"],
      [2, "use a Clock argument"],
    ]);
    const kept = ["this.#end = () => 1;", "a.b = function () {};", "const end = () => 1;"];
    expect(checkBanned("ztunnel/src/a.ts", kept).map(({ line }) => line)).toEqual([1, 2]);
    expect(checkBanned("common/src/sys/libc.ts", ['import koffi from "koffi";'])).toEqual([]);
  });
});
