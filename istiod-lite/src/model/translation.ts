// What the translation of an object may look at, and whom it tells.

import type { ObjectStatus } from "../status/object-status.ts";
import type { MeshSettings } from "../translate/settings.ts";
import type { MeshObjects } from "./mesh-objects.ts";
import type { Waypoints } from "./waypoints.ts";

export interface Translation {
  readonly objects: MeshObjects;
  readonly waypoints: Waypoints;
  readonly settings: MeshSettings;
  /** Hears what becomes of objects whose authors are told. */
  readonly onStatus: (status: ObjectStatus) => void;
}
