// Starts istiod-lite: configuration from the environment, then the application until it has drained.

import { onStopSignal, runMain } from "@ambit/common/process/run.ts";
import { buildApp } from "./app.ts";
import { parseConfig } from "./config.ts";

await runMain(async () => {
  const app = await buildApp(parseConfig(process.env));
  onStopSignal(() => app.stop());
  await app.stopped;
  process.exit(0);
});
