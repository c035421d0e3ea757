import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { Log, memoryLog, parseLevelFilter, raw } from "./log.ts";

describe("a line", () => {
  const write = (format: "plain" | "json") => {
    const lines: string[] = [];
    const log = new Log({ format, write: (line) => lines.push(line) }).scope("access");
    const fields = { "src.addr": raw("10.0.0.1:80"), identity: 'a "b"', n: 3, gone: undefined };
    log.info("connection complete", fields);
    return lines.join("");
  };

  it("is tab-separated, with strings quoted and addresses bare", () => {
    const [time, ...rest] = write("plain").split("\t");
    expect(Date.parse(time!)).toBeGreaterThan(0);
    expect(rest).toEqual([
      "info",
      "access",
      "connection complete",
      'src.addr=10.0.0.1:80 identity="a \\"b\\"" n=3\n',
    ]);
  });

  it("is one JSON object when that is configured, in Istio's order", () => {
    const entry = JSON.parse(write("json")) as Record<string, unknown>;
    expect(Object.keys(entry)).toEqual([
      "level",
      "time",
      "scope",
      "message",
      "src.addr",
      "identity",
      "n",
    ]);
    expect(entry).toMatchObject({ level: "info", scope: "access", identity: 'a "b"', n: 3 });
  });

  it("cannot be forged by what a peer put into a field", () => {
    const lines: string[] = [];
    const log = new Log({ write: (line) => lines.push(line) }).scope("access");
    log.info("m", { name: "x\n2026-01-01\tinfo\taccess\tforged" });
    expect(lines.join("").split("\n")).toHaveLength(2);
  });
});

describe("the level", () => {
  const heard = (filter: string, scope: string) => {
    const { log, lines } = memoryLog(filter);
    const logger = log.scope(scope);
    for (const level of ["trace", "debug", "info", "warn", "error"] as const) logger[level]("x");
    return lines.map((line) => (JSON.parse(line) as { level: string }).level);
  };

  it.each<[string, string, string[]]>([
    ["info", "any", ["info", "warn", "error"]],
    ["off", "any", []],
    ["warn,access=debug", "access", ["debug", "info", "warn", "error"]],
    ["warn,access=debug", "other", ["warn", "error"]],
    ["access=off", "access", []],
    ["access=off", "other", ["info", "warn", "error"]],
    ["INFO", "any", ["info", "warn", "error"]],
  ])("%s lets %s say %j", (filter, scope, levels) => expect(heard(filter, scope)).toEqual(levels));

  it.each(["loud", "info,access=loud", "info,,", ""])("%j is refused", (filter) => {
    expect(() => parseLevelFilter(filter)).toThrow("unknown log level");
  });

  it("changes for loggers that exist already", () => {
    const { log, lines } = memoryLog("warn");
    const logger = log.scope("access");
    logger.info("unheard");
    log.setLevel("warn,access=info");
    logger.info("heard");
    expect(lines).toHaveLength(1);
    expect(log.level).toBe("warn,access=info");
    expect(logger.enabled("debug")).toBe(false);
  });
});

it("a reader that falls behind holds the writer up: no line is lost, cut or reordered", async () => {
  const count = 20_000;
  const program = `
    import { Log } from ${JSON.stringify(new URL("./log.ts", import.meta.url).href)};
    const log = new Log().scope("access");
    for (let i = 0; i < ${count}; i++) log.info("line", { i, padding: "x".repeat(100) });`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.pause();
  await delay(200);
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString())).resume();
  await once(child, "close");
  const seen = [...text.matchAll(/\ti=(\d+) padding="x{100}"\n/g)].map(([, i]) => Number(i));
  expect(seen).toEqual(Array.from({ length: count }, (_, i) => i));
});
