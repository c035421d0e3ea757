// Starts the node agent: configuration from the environment, then the application until it is stopped.

import { onStopSignal, runMain } from "@ambit/common/process/run.ts";
import { buildApp } from "./app.ts";
import { parseConfig } from "./config.ts";

await runMain(async () => {
  const app = await buildApp(parseConfig(process.env));
  await new Promise<void>((resolve) => onStopSignal(() => resolve()));
  await app.stop();
  process.exit(0);
});
