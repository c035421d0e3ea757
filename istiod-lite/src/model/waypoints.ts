// Which waypoint an object is bound to, or why it is not: its own labels first, then its namespace's (facts
// of istiod's waypoint resolution). A waypoint that is asked for and cannot be had is none at all, never
// another one: the object is served at L4, and its status says so.

import type { Service, ServiceEntry } from "@ambit/api/resources/kinds.ts";
import { keyText } from "@ambit/common/resources/source.ts";
import { type Labels, labelsOf } from "../translate/labels.ts";
import type { MeshSettings } from "../translate/settings.ts";
import {
  CANARY,
  CANARY_WEIGHT,
  canaryKey,
  type GatewayAddress,
  instanceKey,
  isGatewayService,
  USE_WAYPOINT,
  type Waypoint,
  waypointKey,
  waypointOf,
} from "../translate/waypoint.ts";
import type { MeshObjects } from "./mesh-objects.ts";

/** Why a waypoint that was asked for is not used; reasons as istiod writes them. */
export interface Refusal {
  readonly reason:
    | "WaypointIsNotReady"
    | "AttachmentDenied"
    | "UnsupportedTrafficType"
    | "CrossNamespaceWaypointForbidden"
    | "CanarySameAsPrimary"
    | "CanaryInvalidWeight";
  readonly message: string;
}

/** Both missing: none is asked for. */
export interface Attachment {
  readonly waypoint?: Waypoint;
  readonly refusal?: Refusal;
}

export interface ServiceAttachment extends Attachment {
  /** Of each connection one of these is chosen by weight; with a refused canary there are none. */
  readonly weighted?: readonly { readonly destination: GatewayAddress; readonly weight: number }[];
  readonly canaryRefusal?: Refusal;
}

type Objects = Pick<MeshObjects, "gateways" | "gatewayClasses" | "namespaceObject">;

const NOTHING: Attachment = {};
const WEIGHT_MAX = 100;

export class Waypoints {
  readonly #objects: Objects;

  constructor(objects: Objects) {
    this.#objects = objects;
  }

  /** `confined`: clients of other namespaces must not see it, so neither may their waypoint. */
  ofService(
    { metadata }: Service | ServiceEntry,
    settings: MeshSettings,
    confined = false,
  ): ServiceAttachment {
    const { namespace = "", labels = {}, annotations = {} } = metadata;
    if (isGatewayService(labels)) return NOTHING;
    const attachment = this.#ofTarget(namespace, labels, settings);
    const { waypoint } = attachment;
    if (waypoint === undefined) return attachment;
    if (!takes(waypoint, "service")) return { refusal: unsupported(waypoint, "service") };
    if (confined && waypoint.namespace !== namespace) return { refusal: forbidden(waypoint) };
    return { waypoint, ...this.#canary(waypoint, { namespace, labels, annotations }, settings) };
  }

  ofWorkload(namespace: string, labels: Labels, settings: MeshSettings): Attachment {
    const attachment = this.#ofTarget(namespace, labels, settings);
    const { waypoint } = attachment;
    if (waypoint === undefined || takes(waypoint, "workload")) return attachment;
    // A namespace's waypoint for services says nothing about workloads: not a mistake.
    if (labels[USE_WAYPOINT] === undefined) return NOTHING;
    return { refusal: unsupported(waypoint, "workload") };
  }

  /** The waypoint that a pod with these labels is an instance of. */
  ofInstance(namespace: string, labels: Labels, settings: MeshSettings): Waypoint | undefined {
    const key = instanceKey(labels, namespace);
    return key === undefined ? undefined : this.byKey(key, settings);
  }

  /** undefined: no such Gateway, or none that is ready. */
  byKey(key: string, settings: MeshSettings): Waypoint | undefined {
    const gateway = this.#objects.gateways.get(key);
    if (gateway === undefined) return undefined;
    const name = gateway.spec.gatewayClassName;
    const kind = this.#objects.gatewayClasses.get(
      keyText({ kind: "GatewayClass", namespace: "", name }),
    );
    return waypointOf(gateway, kind, settings);
  }

  #ofTarget(namespace: string, labels: Labels, settings: MeshSettings): Attachment {
    let key = waypointKey(labels, namespace);
    if (key === undefined) {
      const object = this.#objects.namespaceObject(namespace);
      key = object && waypointKey(labelsOf(object), namespace);
    }
    return key === undefined || key === "none" ? NOTHING : this.#attach(key, namespace, settings);
  }

  #attach(key: string, namespace: string, settings: MeshSettings): Attachment {
    const waypoint = this.byKey(key, settings);
    if (waypoint === undefined) return { refusal: notReady(key) };
    const object = this.#objects.namespaceObject(namespace);
    return waypoint.admits(namespace, object === undefined ? {} : labelsOf(object))
      ? { waypoint }
      : { refusal: denied(waypoint) };
  }

  /** From the level that names the primary one: the namespace's counts for objects that name none. */
  #canary(
    primary: Waypoint,
    object: { namespace: string; labels: Labels; annotations: Labels },
    settings: MeshSettings,
  ): Pick<ServiceAttachment, "weighted" | "canaryRefusal"> {
    const { namespace } = object;
    const inherits = waypointKey(object.labels, namespace) === undefined;
    const { labels = {}, annotations = {} } =
      (inherits ? this.#objects.namespaceObject(namespace)?.metadata : undefined) ?? {};
    const key = canaryKey(CANARY in object.labels ? object.labels : labels, namespace);
    if (key === undefined) return {};
    const name = nameOf(key);
    if (name === primary.name) return { canaryRefusal: samePrimary(name) };
    const weight = weightOf(object.annotations[CANARY_WEIGHT] ?? annotations[CANARY_WEIGHT]);
    if (weight === undefined) return { canaryRefusal: invalidWeight(name) };
    const { waypoint, refusal } = this.#attach(key, namespace, settings);
    if (waypoint === undefined) return { ...(refusal && { canaryRefusal: refusal }) };
    if (!takes(waypoint, "service")) return { canaryRefusal: unsupported(waypoint, "service") };
    return {
      weighted: [
        { destination: primary.address, weight: WEIGHT_MAX - weight },
        { destination: waypoint.address, weight },
      ],
    };
  }
}

function takes({ trafficType }: Waypoint, wanted: "service" | "workload"): boolean {
  return trafficType === wanted || trafficType === "all";
}

/** Percent; undefined when it is none. */
function weightOf(text = "0"): number | undefined {
  const weight = /^\d{1,3}$/.test(text) ? Number(text) : undefined;
  return weight !== undefined && weight <= WEIGHT_MAX ? weight : undefined;
}

function nameOf(key: string): string {
  return key.slice(key.indexOf("/") + 1);
}

function notReady(key: string): Refusal {
  const message = `waypoint ${nameOf(key)} does not exist or has no address yet: traffic goes without it`;
  return { reason: "WaypointIsNotReady", message };
}

function denied({ name }: Waypoint): Refusal {
  const message = `waypoint ${name} does not admit this namespace: see allowedRoutes of its listener`;
  return { reason: "AttachmentDenied", message };
}

function unsupported({ name, trafficType }: Waypoint, wanted: string): Refusal {
  const message = `waypoint ${name} is for traffic of type ${trafficType}, not ${wanted}: see its label istio.io/waypoint-for`;
  return { reason: "UnsupportedTrafficType", message };
}

function forbidden({ name }: Waypoint): Refusal {
  const message = `waypoint ${name} is in another namespace, and this entry is visible in its own only`;
  return { reason: "CrossNamespaceWaypointForbidden", message };
}

function samePrimary(name: string): Refusal {
  return { reason: "CanarySameAsPrimary", message: `canary waypoint ${name} is the primary one` };
}

function invalidWeight(name: string): Refusal {
  const message = `the weight of canary waypoint ${name} must be a whole number from 0 to ${WEIGHT_MAX}`;
  return { reason: "CanaryInvalidWeight", message };
}
