// Local mode: the runtime writes the pod's namespace into the annotation ambit.io/netns. Only names
// under /run/netns are followed, and never into the agent's own namespace: annotations are user input.

import { errorCode } from "@ambit/common/process/errors.ts";
import { type NetnsHandle, openNetns, sameNetns } from "@ambit/common/sys/netns.ts";
import type { PodView } from "../mesh/pod-view.ts";
import type { NetnsFinder } from "./finder.ts";

export const NETNS_ANNOTATION = "ambit.io/netns";

const NETNS_PATH = /^\/(var\/)?run\/netns\/[A-Za-z0-9][A-Za-z0-9_.-]*$/;

export class AnnotationFinder implements NetnsFinder {
  find(pod: PodView): NetnsHandle | undefined {
    const path = pod.annotations[NETNS_ANNOTATION];
    if (path === undefined || !NETNS_PATH.test(path)) return undefined;
    try {
      const found = openNetns(path);
      using own = openNetns("/proc/thread-self/ns/net");
      if (!sameNetns(found, own) && found.device === own.device) return found;
      found.close();
    } catch (error) {
      if (errorCode(error) !== "ENOENT" && errorCode(error) !== "EACCES") throw error;
    }
    return undefined;
  }
}
