// Logging in Istio's two formats: tab-separated plain text (default) and JSON (LOG_FORMAT=json).
// Plain: time, level, scope, message, then k=v fields. One writer per thread; lines are never split.

import { writeSync } from "node:fs";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "off"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** undefined fields are omitted; `raw()` values print without quotes, as addresses do. */
export type LogFields = Readonly<Record<string, LogValue>>;
export type LogValue = string | number | boolean | Raw | undefined;

/** A string that the plain format prints bare. */
export class Raw {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

export function raw(text: string | undefined): Raw | undefined {
  return text === undefined ? undefined : new Raw(text);
}

export interface Logger {
  trace(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** Cheap check before building costly fields. */
  enabled(level: LogLevel): boolean;
}

export type LogWriter = (line: string) => void;
export type LogFormat = "plain" | "json";

/** Lines go to standard output, synchronously: a crash never loses the line that explains it. */
const toStdout: LogWriter = (line) => writeAll(1, line);

/** The log of one thread: its level filter, format and writer, shared by the loggers of all scopes. */
export class Log {
  readonly #format: LogFormat;
  readonly #write: LogWriter;
  #filter: LevelFilter;

  constructor(options: { format?: LogFormat; level?: string; write?: LogWriter } = {}) {
    this.#format = options.format ?? "plain";
    this.#write = options.write ?? toStdout;
    this.#filter = parseLevelFilter(options.level ?? "info");
  }

  /** Replaces the filter: `debug`, or `info,access=debug,dns=off`. Throws on an unknown level. */
  setLevel(filter: string): void {
    this.#filter = parseLevelFilter(filter);
  }

  get level(): string {
    return this.#filter.text;
  }

  scope(name: string): Logger {
    const at =
      (level: LogLevel) =>
      (message: string, fields: LogFields = {}) => {
        if (this.#enabled(name, level)) this.#write(this.#line(level, name, message, fields));
      };
    return {
      trace: at("trace"),
      debug: at("debug"),
      info: at("info"),
      warn: at("warn"),
      error: at("error"),
      enabled: (level) => this.#enabled(name, level),
    };
  }

  #enabled(scope: string, level: LogLevel): boolean {
    const threshold = this.#filter.scopes.get(scope) ?? this.#filter.base;
    return LOG_LEVELS.indexOf(level) >= LOG_LEVELS.indexOf(threshold);
  }

  #line(level: LogLevel, scope: string, message: string, fields: LogFields): string {
    const time = new Date().toISOString();
    if (this.#format === "json") {
      const entry: Record<string, unknown> = { level, time, scope, message };
      for (const key in fields) {
        const value = fields[key];
        entry[key] = value instanceof Raw ? value.text : value;
      }
      return `${JSON.stringify(entry)}\n`;
    }
    let line = `${time}\t${level}\t${scope}\t${message}`;
    let separator = "\t";
    for (const key in fields) {
      const value = fields[key];
      if (value === undefined) continue;
      line += `${separator}${key}=${plainValue(value)}`;
      separator = " ";
    }
    return `${line}\n`;
  }
}

interface LevelFilter {
  readonly text: string;
  readonly base: LogLevel;
  readonly scopes: ReadonlyMap<string, LogLevel>;
}

/** RUST_LOG's shape: comma-separated, a bare level is the base, `scope=level` overrides one scope. */
export function parseLevelFilter(text: string): LevelFilter {
  let base: LogLevel = "info";
  const scopes = new Map<string, LogLevel>();
  for (const part of text.split(",")) {
    const [left = "", right] = part.trim().split("=");
    const level = LOG_LEVELS.find((name) => name === (right ?? left).toLowerCase());
    if (level === undefined) {
      throw new Error(`unknown log level "${right ?? left}": use one of ${LOG_LEVELS.join(", ")}`);
    }
    if (right === undefined) base = level;
    else scopes.set(left, level);
  }
  return { text, base, scopes };
}

function plainValue(value: Exclude<LogValue, undefined>): string {
  if (value instanceof Raw) return value.text;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

function writeAll(fd: number, line: string): void {
  let rest = Buffer.from(line);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "EPIPE" || code === "ECONNRESET") return;
      if (code !== "EAGAIN") throw error;
    }
  }
}

/** A log that keeps its lines, for tests. */
export function memoryLog(level = "trace"): { log: Log; lines: string[] } {
  const lines: string[] = [];
  return { log: new Log({ format: "json", level, write: (line) => lines.push(line) }), lines };
}
