// Starts istiod-lite: configuration from the environment, then the application until it has drained.

import { onStopSignal, runMain } from "@ambit/common/process/run.ts";
import { buildApp } from "./app.ts";
import { parseConfig } from "./config.ts";

await runMain(async () => {
  // Until it serves, there is nothing to drain.
  let stop = (): void => process.exit(0);
  onStopSignal(() => stop());
  const app = await buildApp(parseConfig(process.env));
  stop = () => app.stop();
  await app.stopped;
  process.exit(0);
});
