// The shop's page: asks details and reviews, and shows what it got. A part that fails is shown as missing.

import { getJson, serve } from "./http.ts";

interface Details {
  readonly title: string;
  readonly author: string;
  readonly inStock: number;
}

interface Reviews {
  readonly version: string;
  readonly reviews: readonly {
    readonly reviewer: string;
    readonly text: string;
    readonly stars?: number;
  }[];
}

const PORT = Number(process.env["PORT"] ?? 8080);

serve(PORT, async (path) => {
  const [details, reviews] = await Promise.all([
    getJson<Details>("details:8080", "/1").catch((error: Error) => error),
    getJson<Reviews>("reviews:8080", "/1").catch((error: Error) => error),
  ]);
  if (path.startsWith("/api"))
    return { json: { details: orError(details), reviews: orError(reviews) } };
  return { html: render(details, reviews) };
});

function orError<T>(value: T | Error): T | { error: string } {
  return value instanceof Error ? { error: value.message } : value;
}

function render(details: Details | Error, reviews: Reviews | Error): string {
  const book =
    details instanceof Error
      ? `<p>details are missing: ${details.message}</p>`
      : `<h1>${details.title}</h1><p>by ${details.author}; ${details.inStock} in stock</p>`;
  const opinions =
    reviews instanceof Error
      ? `<p>reviews are missing: ${reviews.message}</p>`
      : `<ul>${reviews.reviews.map(({ reviewer, text, stars }) => `<li>${reviewer}: ${text} ${"★".repeat(stars ?? 0)}</li>`).join("")}</ul><p>reviews ${reviews.version}</p>`;
  return `<!doctype html><meta charset="utf-8"><title>Bookshop</title>${book}${opinions}\n`;
}
