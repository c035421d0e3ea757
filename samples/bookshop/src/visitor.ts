// A steady trickle of customers, so that there is something to see: the page, once a second.

const TARGET = process.env["TARGET"] ?? "http://page:8080/api";
const PERIOD_MS = Number(process.env["PERIOD_MS"] ?? 1_000);
const TIMEOUT_MS = 5_000;

async function visit(): Promise<void> {
  try {
    const response = await fetch(TARGET, {
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: { connection: "close" },
    });
    await response.text();
    console.log(`${response.status} ${TARGET}`);
  } catch (error) {
    console.log(`failed ${TARGET}: ${String(error)}`);
  }
}

setInterval(() => void visit(), PERIOD_MS);
