// What the targetRefs of an AuthorizationPolicy come to: the waypoints that are to enforce it, or why there
// are none. No ztunnel is sent such a policy (facts of istiod's waypoint policies).

import type { AuthorizationPolicy } from "@ambit/api/resources/kinds.ts";
import { keyText } from "@ambit/common/resources/source.ts";
import type { MeshSettings } from "../translate/settings.ts";
import { gatewayKey } from "../translate/waypoint.ts";
import type { MeshObjects } from "./mesh-objects.ts";
import type { Waypoints } from "./waypoints.ts";

type Spec = AuthorizationPolicy["spec"];
export type TargetRef = NonNullable<Spec["targetRef"]>;

/** One target: the waypoint that it leads to, or why it leads nowhere. */
export type Target =
  | { readonly waypoint: string }
  | {
      readonly reason: "TargetNotFound" | "AncestorNotBound" | "Invalid";
      readonly message: string;
    };

export function targetRefsOf({ targetRef, targetRefs = [] }: Spec): readonly TargetRef[] {
  return targetRef === undefined ? targetRefs : [targetRef, ...targetRefs];
}

const GROUPS = new Map([
  ["Service", ""],
  ["ServiceEntry", "networking.istio.io"],
  ["Gateway", "gateway.networking.k8s.io"],
  ["GatewayClass", "gateway.networking.k8s.io"],
]);

/** The key of the object that is meant; undefined for kinds that no policy can be for. */
export function targetKey({ group, kind, name }: TargetRef, namespace: string): string | undefined {
  if (GROUPS.get(kind) !== group) return undefined;
  return kind === "GatewayClass" ? `GatewayClass//${name}` : `${kind}/${namespace}/${name}`;
}

/** In the order in which the policy lists them. */
export function targetsOf(
  { spec, metadata }: AuthorizationPolicy,
  objects: MeshObjects,
  waypoints: Waypoints,
  settings: MeshSettings,
): Target[] {
  const { namespace = "" } = metadata;
  return targetRefsOf(spec).map((ref): Target => {
    const text = `${ref.kind} ${ref.name}`;
    if (ref.namespace !== undefined && ref.namespace !== namespace)
      return invalid(`${text} is of another namespace: a policy is for what is in its own`);
    switch (targetKey(ref, namespace) === undefined ? "" : ref.kind) {
      case "Service":
      case "ServiceEntry":
        return ofService(ref, namespace, objects, waypoints, settings);
      case "Gateway": {
        const key = gatewayKey(namespace, ref.name);
        if (objects.gateways.get(key) === undefined) return notFound(text);
        const waypoint = waypoints.byKey(key, settings);
        return waypoint === undefined
          ? notBound(`${text} has no address yet`)
          : { waypoint: waypoint.name };
      }
      case "GatewayClass":
        if (namespace !== settings.rootNamespace)
          return invalid(`${text} can be the target of policies in ${settings.rootNamespace} only`);
        return objects.gatewayClasses.get(`GatewayClass//${ref.name}`) === undefined
          ? notFound(text)
          : { waypoint: `every Gateway of class ${ref.name}` };
      default:
        return invalid(
          `${ref.kind} of group "${ref.group}" can be no target: use Service, ServiceEntry, Gateway or GatewayClass`,
        );
    }
  });
}

function ofService(
  { kind, name }: TargetRef,
  namespace: string,
  objects: MeshObjects,
  waypoints: Waypoints,
  settings: MeshSettings,
): Target {
  const text = `${kind} ${name}`;
  const service =
    kind === "Service"
      ? objects.services.get(keyText({ kind, namespace, name }))
      : objects.serviceEntries.get(`ServiceEntry/${namespace}/${name}`);
  if (service === undefined) return notFound(text);
  const confined = service.kind === "ServiceEntry" && objects.visibilityOf(service) === "NAMESPACE";
  const { waypoint, refusal } = waypoints.ofService(service, settings, confined);
  if (waypoint !== undefined) return { waypoint: waypoint.name };
  return notBound(refusal?.message ?? `${text} has no waypoint: label it istio.io/use-waypoint`);
}

function notFound(text: string): Target {
  return { reason: "TargetNotFound", message: `${text} does not exist` };
}

function notBound(message: string): Target {
  return { reason: "AncestorNotBound", message };
}

function invalid(message: string): Target {
  return { reason: "Invalid", message };
}
