// The name of what a pod belongs to, as Istio finds it: the Deployment behind a ReplicaSet, the CronJob
// behind a Job, and so on. Telemetry groups by it.

import type { Pod } from "@ambit/api/resources/kinds.ts";
import { type Labels, labelsOf } from "./labels.ts";

const OWN_LABEL = "service.istio.io/workload-name";
/** What Deployments and Argo's Rollouts write on their pods, and put behind their ReplicaSets' names. */
const HASH_LABELS = ["pod-template-hash", "rollouts-pod-template-hash"] as const;
/** OpenShift's, above a ReplicationController. */
const DEPLOYMENT_CONFIG_LABEL = "deploymentconfig";
/** A CronJob's Jobs have the minute of their start in their name. */
const CRON_JOB = /^(.+)-\d{8,10}$/;

/** The pod's own label, else what its controller is made by, else the pod itself. */
export function workloadNameOf(pod: Pod): string {
  const labels = labelsOf(pod);
  const owner = pod.metadata.ownerReferences?.find(({ controller }) => controller);
  return labels[OWN_LABEL] ?? (owner === undefined ? pod.metadata.name : above(owner, labels));
}

function above({ kind, name }: { kind: string; name: string }, labels: Labels): string {
  switch (kind) {
    case "ReplicaSet":
      for (const label of HASH_LABELS) {
        const suffix = `-${labels[label]}`;
        if (labels[label] && name.endsWith(suffix)) return name.slice(0, -suffix.length);
      }
      return name;
    case "ReplicationController":
      return labels[DEPLOYMENT_CONFIG_LABEL] ?? name;
    case "Job":
      return CRON_JOB.exec(name)?.[1] ?? name;
    default:
      return name;
  }
}
