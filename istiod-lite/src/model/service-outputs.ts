// Services, ServiceEntries, EndpointSlices and Gateways: gathers what their translation depends on.

import type { EndpointSlice, Gateway, Service, ServiceEntry } from "@ambit/api/resources/kinds.ts";
import { keyOf, keyText } from "@ambit/common/resources/source.ts";
import { serviceEntryStatus, serviceStatus } from "../status/verdicts.ts";
import { translateEndpointSlice } from "../translate/endpoint-slice.ts";
import { labelsOf } from "../translate/labels.ts";
import { networkGatewaysOf, networkGatewayWorkload } from "../translate/network-gateway.ts";
import { isMeshService, translateService } from "../translate/service.ts";
import {
  type EntryWorkloadsView,
  meshHosts,
  serviceEntryServices,
  serviceEntryWorkloads,
} from "../translate/service-entry.ts";
import { attachmentOf, gatewaysOf, policiesBefore, serviceWaypoints } from "./bindings.ts";
import { addressOutput, authorizationOutput, type Output } from "./output.ts";
import { policiesSelecting } from "./selected-policies.ts";
import type { Translation } from "./translation.ts";
import { waypointPolicy } from "./waypoint-policies.ts";

export function serviceOutputs(service: Service, translation: Translation): Output[] {
  if (!isMeshService(service)) return [];
  const { objects, settings, onStatus } = translation;
  const namespace = objects.namespaceObject(service.metadata.namespace ?? "");
  const attachment = attachmentOf(service, translation);
  const waypoints = serviceWaypoints(service, namespace, attachment);
  onStatus(serviceStatus(service, attachment, waypoints.ingressUseWaypoint));
  const address = translateService(service, namespace, waypoints, settings);
  return address === undefined ? [] : [addressOutput(address)];
}

export function serviceEntryOutputs(entry: ServiceEntry, translation: Translation): Output[] {
  const { objects, settings, onStatus } = translation;
  const namespace = objects.namespaceObject(entry.metadata.namespace ?? "");
  const visibility = objects.visibilityOf(entry);
  const attachment = attachmentOf(entry, translation);
  const waypoints = serviceWaypoints(entry, namespace, attachment);
  const isConfigured = settings.serviceEntryVisibility !== undefined;
  const hosts = objects.hostsOf(entry);
  const key = keyText(keyOf(entry));
  onStatus(
    serviceEntryStatus(entry, {
      attachment,
      ingress: waypoints.ingressUseWaypoint,
      ...(isConfigured && { visibility }),
      lostHosts: lostHosts(entry, hosts, translation),
    }),
  );
  const claims = hosts.map((host) => ({
    host,
    canonical: objects.hostnames.isCanonical(key, host),
  }));
  const services = { claims, namespace, waypoints, visibility, settings };
  const workloads = workloadsView(entry, hosts, translation);
  return [...serviceEntryServices(entry, services), ...serviceEntryWorkloads(entry, workloads)].map(
    addressOutput,
  );
}

/** Hosts that others of its namespace have, with the keys of those. */
function lostHosts(
  entry: ServiceEntry,
  hosts: readonly string[],
  { objects }: Translation,
): readonly { readonly host: string; readonly owner: string }[] {
  const key = keyText(keyOf(entry));
  return meshHosts(entry).flatMap((host) => {
    const owner = hosts.includes(host) ? undefined : objects.hostnames.ownerBeside(key, host);
    return owner === undefined ? [] : { host, owner };
  });
}

function workloadsView(
  entry: ServiceEntry,
  hosts: readonly string[],
  translation: Translation,
): EntryWorkloadsView {
  const { objects, settings } = translation;
  const { namespace = "" } = entry.metadata;
  const selecting = policiesSelecting(objects, { namespace, labels: labelsOf(entry) }, settings);
  const before = policiesBefore([entry], {}, translation);
  return {
    settings,
    hosts,
    around: (labels, network) => {
      const { gateways, attachment } = gatewaysOf({ namespace, labels, network }, translation);
      const own = policiesBefore([], attachment, translation);
      return { gateways, policies: [...new Set([...selecting, ...before, ...own])] };
    },
  };
}

export function endpointSliceOutputs(
  slice: EndpointSlice,
  { objects, settings }: Translation,
): Output[] {
  const service = objects.serviceOf(slice);
  if (service === undefined) return [];
  return translateEndpointSlice(slice, service, settings).map(addressOutput);
}

/** The gateways into other networks that the object stands for, and a waypoint's own policy. */
export function gatewayOutputs(
  gateway: Gateway,
  { objects, waypoints, settings }: Translation,
): Output[] {
  const waypoint = waypoints.byKey(keyText(keyOf(gateway)), settings);
  const policy = waypoint && waypointPolicy(objects, waypoint, settings);
  const outputs = networkGatewaysOf(gateway).map((each) =>
    addressOutput(networkGatewayWorkload(each, settings)),
  );
  return policy === undefined ? outputs : [...outputs, authorizationOutput(policy)];
}
