// Reading environment variables: every variable is read through one reader, all errors are collected,
// and the program fails once with the whole list.

import { UserError } from "./errors.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export class EnvironmentReader {
  readonly #env: Environment;
  readonly #problems: string[] = [];

  constructor(env: Environment) {
    this.#env = env;
  }

  text(name: string): string | undefined;
  text(name: string, fallback: string): string;
  text(name: string, fallback?: string): string | undefined {
    const value = this.#env[name];
    return value === undefined || value === "" ? fallback : value;
  }

  /** true/false/1/0. */
  flag(name: string, fallback: boolean): boolean {
    const value = this.text(name)?.toLowerCase();
    if (value === undefined) return fallback;
    if (value === "true" || value === "1") return true;
    if (value !== "false" && value !== "0") this.#problem(name, `"${value}" is not true or false`);
    return false;
  }

  integer(name: string, fallback: number, range: { min: number; max: number }): number {
    const value = this.text(name);
    if (value === undefined) return fallback;
    const number = Number(value);
    if (Number.isInteger(number) && number >= range.min && number <= range.max) return number;
    this.#problem(name, `"${value}" is not a whole number from ${range.min} to ${range.max}`);
    return fallback;
  }

  /** "5m", "1h30m", "250ms", or plain seconds; in milliseconds. */
  durationMs(name: string, fallbackMs: number): number {
    const value = this.text(name);
    if (value === undefined) return fallbackMs;
    const ms = parseDurationMs(value);
    if (ms === undefined) this.#problem(name, `"${value}" is not a duration like 5m, 30s or 250ms`);
    return ms ?? fallbackMs;
  }

  oneOf<const T extends string>(name: string, choices: readonly T[], fallback: T): T {
    const value = this.text(name);
    if (value === undefined) return fallback;
    const found = choices.find((choice) => choice === value.toLowerCase());
    if (found === undefined) this.#problem(name, `"${value}" is not one of ${choices.join(", ")}`);
    return found ?? fallback;
  }

  /** Any other parser; it returns an Error's message for a bad value by throwing. */
  parsed<T>(name: string, fallback: T, parse: (value: string) => T): T {
    const value = this.text(name);
    if (value === undefined) return fallback;
    try {
      return parse(value);
    } catch (error) {
      this.#problem(name, error instanceof Error ? error.message : String(error));
      return fallback;
    }
  }

  /** Records a problem that concerns several variables. */
  reject(name: string, message: string): void {
    this.#problem(name, message);
  }

  /** Throws UserError listing every problem met so far. */
  finish(): void {
    if (this.#problems.length === 0) return;
    throw new UserError(`invalid configuration: ${this.#problems.join("; ")}`, 2);
  }

  #problem(name: string, message: string): void {
    this.#problems.push(`${name}: ${message}`);
  }
}

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;

/** Go-style durations; undefined when malformed. Plain numbers are seconds. */
export function parseDurationMs(text: string): number | undefined {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) {
    total += Number(amount) * UNIT_MS[unit as keyof typeof UNIT_MS];
  }
  return total;
}
