// The answer to the node agent's question whether a pod is captured. That the question arrived at all
// is the proof; no identity or policy has a part in it, and it is no traffic to account for.

import type { ByteSocket } from "@ambit/common/net/byte-socket.ts";
import { captureAnswer } from "@ambit/common/net/capture-probe.ts";
import type { Pod } from "./context.ts";

/** Says which pod the connection came from, and closes it. */
export function answerCaptureProbe(client: ByteSocket, pod: Pod): void {
  client.write(Buffer.from(captureAnswer(pod.uid)));
  client.endAndClose();
}
