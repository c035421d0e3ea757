// Starts ztunnel: configuration from the environment, then the application until it has drained.

import { onStopSignal, runMain } from "@ambit/common/process/run.ts";
import { App } from "./app.ts";
import { parseConfig } from "./config.ts";

await runMain(async () => {
  const app = await App.start(parseConfig(process.env));
  onStopSignal(() => app.stop());
  await app.stopped;
  process.exit(0);
});
