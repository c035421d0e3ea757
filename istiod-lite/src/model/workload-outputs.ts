// Pods and WorkloadEntries: gathers what their translation depends on.

import type { Pod, WorkloadEntry } from "@ambit/api/resources/kinds.ts";
import { keyText } from "@ambit/common/resources/source.ts";
import { workloadEntryStatus } from "../status/verdicts.ts";
import { type Labels, labelsOf } from "../translate/labels.ts";
import {
  entryPortsOfService,
  entryPortsOfServiceEntry,
  podPortsOfService,
  podPortsOfServiceEntry,
  type ServedService,
  slicePortsOfService,
} from "../translate/served-ports.ts";
import { serviceResourceName } from "../translate/service.ts";
import {
  translatePod,
  translateWorkloadEntry,
  workloadEntryLabels,
} from "../translate/workload.ts";
import { frontsOf, gatewaysOf, policiesBefore } from "./bindings.ts";
import { addressOutput, type Output } from "./output.ts";
import { policiesSelecting } from "./selected-policies.ts";
import type { Translation } from "./translation.ts";

export function podOutputs(pod: Pod, translation: Translation): Output[] {
  const { objects, settings } = translation;
  const { namespace = "" } = pod.metadata;
  const labels = labelsOf(pod);
  const name = pod.spec.nodeName ?? "";
  const { gateways, attachment } = gatewaysOf({ namespace, labels }, translation);
  const address = translatePod(pod, {
    settings,
    gateways,
    services: servicesOfPod(pod, labels, translation),
    node: objects.nodes.get(keyText({ kind: "Node", namespace: "", name })),
    namespace: objects.namespaceObject(namespace),
    policies: [
      ...policiesSelecting(objects, { namespace, labels }, settings),
      ...policiesBefore(frontsOf(pod, labels, translation), attachment, translation),
    ],
  });
  return address === undefined ? [] : [addressOutput(address)];
}

function servicesOfPod(pod: Pod, labels: Labels, { objects, settings }: Translation) {
  const namespace = pod.metadata.namespace ?? "";
  const served: ServedService[] = [];
  for (const service of objects.servicesSelecting(namespace, labels)) {
    const name = serviceResourceName(service, settings);
    served.push({ name, ports: podPortsOfService(pod, service) });
  }
  for (const { slice, service } of objects.listedIn(pod)) {
    const name = serviceResourceName(service, settings);
    served.push({ name, ports: slicePortsOfService(slice, service) });
  }
  for (const entry of objects.serviceEntriesSelecting(namespace, labels)) {
    const ports = podPortsOfServiceEntry(pod, entry);
    for (const host of objects.hostsOf(entry)) served.push({ name: `${namespace}/${host}`, ports });
  }
  return served;
}

export function workloadEntryOutputs(entry: WorkloadEntry, translation: Translation): Output[] {
  const { objects, settings, onStatus } = translation;
  const { namespace = "" } = entry.metadata;
  const labels = workloadEntryLabels(entry);
  const { network } = entry.spec;
  const placed = { namespace, labels: labelsOf(entry), network };
  const { gateways, attachment } = gatewaysOf(placed, translation);
  onStatus(workloadEntryStatus(entry, attachment));
  const address = translateWorkloadEntry(entry, {
    settings,
    gateways,
    services: servicesOfEntry(entry, labels, translation),
    policies: [
      ...policiesSelecting(objects, { namespace, labels }, settings),
      ...policiesBefore(frontsOf(entry, labels, translation), attachment, translation),
    ],
  });
  return address === undefined ? [] : [addressOutput(address)];
}

function servicesOfEntry(
  { spec, metadata }: WorkloadEntry,
  labels: Labels,
  { objects, settings }: Translation,
): ServedService[] {
  const { namespace = "" } = metadata;
  const served: ServedService[] = [];
  for (const service of objects.servicesSelecting(namespace, labels)) {
    const name = serviceResourceName(service, settings);
    served.push({ name, ports: entryPortsOfService(spec, service) });
  }
  for (const selecting of objects.serviceEntriesSelecting(namespace, labels)) {
    const ports = entryPortsOfServiceEntry(spec, selecting);
    for (const host of objects.hostsOf(selecting))
      served.push({ name: `${namespace}/${host}`, ports });
  }
  return served;
}
