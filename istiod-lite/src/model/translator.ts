// From the key of an object to what ztunnels are sent for it, by the translation of its kind.

import type { ObjectStatus } from "../status/object-status.ts";
import type { MeshSettings } from "../translate/settings.ts";
import { STATIC_KEY } from "./affected.ts";
import type { MeshObjects } from "./mesh-objects.ts";
import type { Output } from "./output.ts";
import { peerAuthenticationOutputs, policyOutputs, staticPolicyOutputs } from "./rule-outputs.ts";
import {
  endpointSliceOutputs,
  gatewayOutputs,
  serviceEntryOutputs,
  serviceOutputs,
} from "./service-outputs.ts";
import type { Translation } from "./translation.ts";
import { Waypoints } from "./waypoints.ts";
import { podOutputs, workloadEntryOutputs } from "./workload-outputs.ts";

export class Translator {
  readonly #given: Omit<Translation, "settings">;

  /** `onStatus` hears what becomes of each object whose author is told, when it is translated. */
  constructor(objects: MeshObjects, onStatus: (status: ObjectStatus) => void) {
    this.#given = { objects, waypoints: new Waypoints(objects), onStatus };
  }

  /** Nothing when the object is gone, or means nothing to ztunnels. */
  translate(key: string, settings: MeshSettings): Output[] {
    const translation = { ...this.#given, settings };
    if (key === STATIC_KEY) return staticPolicyOutputs(translation);
    const { objects } = translation;
    const apply = <T>(object: T | undefined, outputs: (it: T, of: Translation) => Output[]) =>
      object === undefined ? [] : outputs(object, translation);
    switch (key.slice(0, key.indexOf("/"))) {
      case "Pod":
        return apply(objects.pods.get(key), podOutputs);
      case "WorkloadEntry":
        return apply(objects.workloadEntries.get(key), workloadEntryOutputs);
      case "Service":
        return apply(objects.services.get(key), serviceOutputs);
      case "ServiceEntry":
        return apply(objects.serviceEntries.get(key), serviceEntryOutputs);
      case "EndpointSlice":
        return apply(objects.endpointSlices.get(key), endpointSliceOutputs);
      case "Gateway":
        return apply(objects.gateways.get(key), gatewayOutputs);
      case "AuthorizationPolicy":
        return apply(objects.policies.get(key), policyOutputs);
      case "PeerAuthentication":
        return apply(objects.peerAuthentications.get(key), peerAuthenticationOutputs);
      default:
        return [];
    }
  }
}
