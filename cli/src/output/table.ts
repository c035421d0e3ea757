// Tables for people and JSON for programs, from the same rows.

/** One column: its heading, and its text for a row. */
export interface Column<Row> {
  readonly title: string;
  readonly text: (row: Row) => string | number | boolean | undefined;
}

const GAP = "   ";
const EMPTY = "-";

/** Left-aligned columns as wide as their widest cell, the last without padding. */
export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ text }) => cellText(text(row)))),
  ];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => displayWidth(line[i]!))));
  return cells.map((line) => renderLine(line, widths)).join("\n");
}

function renderLine(line: readonly string[], widths: readonly number[]): string {
  const padded = line.map((cell, i) => cell + " ".repeat(widths[i]! - displayWidth(cell)));
  return padded.join(GAP).trimEnd();
}

/** A cell is one line: what would break the table is shown as a blank. */
function cellText(value: string | number | boolean | undefined): string {
  const text = String(value ?? "").replace(/[\r\n\t]+/g, " ");
  return text === "" ? EMPTY : text;
}

/** Characters, not UTF-16 units. */
function displayWidth(text: string): number {
  return Array.from(text).length;
}

export type OutputFormat = "table" | "json";

/** Prints rows as `-o` asks; an empty table is a sentence. */
export function printRows<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  options: { readonly format: OutputFormat; readonly empty: string; readonly json?: unknown },
): void {
  if (options.format === "json") printJson(options.json ?? rows);
  else console.log(rows.length === 0 ? options.empty : renderTable(columns, rows));
}

export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, undefined, 2));
}
