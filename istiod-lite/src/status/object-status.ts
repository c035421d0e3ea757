// What the control plane has to say about an object, and putting it into the object's status without
// touching what others wrote there.

import type { Resource, ServiceEntry } from "@ambit/api/resources/kinds.ts";
import type { ResourceKey } from "@ambit/common/resources/source.ts";

/** Whether the proxies that enforce a rule have it. */
export const APPLIED = "ambit.io/Applied";

/** The kinds we write a status to, and the conditions there that are ours. */
export const OWN_CONDITIONS = {
  AuthorizationPolicy: ["ZtunnelAccepted", "WaypointAccepted", APPLIED],
  PeerAuthentication: [APPLIED],
  Service: ["istio.io/WaypointBound"],
  ServiceEntry: [
    "istio.io/WaypointBound",
    "istio.io/WaypointMissing",
    "istio.io/VisibilityApplied",
    "ambit.io/HostConflict",
  ],
  WorkloadEntry: ["istio.io/WaypointBound"],
} as const;

type StatusKind = keyof typeof OWN_CONDITIONS;
export type ConditionType = (typeof OWN_CONDITIONS)[StatusKind][number];

export interface Condition {
  readonly type: ConditionType;
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

/** Who enforces a rule. */
export type Enforcement =
  | {
      readonly kind: "proxies";
      /** In words. */
      readonly where: string;
      /** The xDS name of what the rule became; undefined when it only changes workloads. */
      readonly resource?: string;
    }
  | { readonly kind: "nobody"; readonly why: string };

export interface ObjectStatus {
  readonly key: ResourceKey & { readonly kind: StatusKind };
  /** Of the object that the conditions are about. */
  readonly generation?: number | undefined;
  /** Rules only: what makes their condition `Applied`, which is added to the others once it is known. */
  readonly enforcement?: Enforcement;
  /** Those that apply; our others are taken away. */
  readonly conditions: readonly Condition[];
  /** ServiceEntries only: the addresses allocated to its hosts. */
  readonly addresses?: readonly { readonly value: string; readonly host: string }[];
}

/** The object with this status; the object itself when it has it already. */
export function withStatus(resource: Resource, wanted: ObjectStatus, nowMs: number): Resource {
  if (!hasStatus(resource)) return resource;
  const conditions = mergeConditions(resource, wanted, nowMs);
  const addresses =
    resource.kind === "ServiceEntry" ? changedAddresses(resource, wanted) : undefined;
  if (conditions === undefined && addresses === undefined) return resource;
  const status = {
    ...resource.status,
    ...(conditions && { conditions }),
    ...(addresses && { addresses }),
  };
  return { ...resource, status };
}

function hasStatus(resource: Resource): resource is Extract<Resource, { kind: StatusKind }> {
  return Object.hasOwn(OWN_CONDITIONS, resource.kind);
}

/** undefined: they are as they should be. */
function changedAddresses(entry: ServiceEntry, { addresses = [] }: ObjectStatus) {
  const same = JSON.stringify(addressesOf(entry)) === JSON.stringify(addresses);
  return same ? undefined : [...addresses];
}

function addressesOf({ status }: ServiceEntry): { value: string; host: string | undefined }[] {
  return (status?.addresses ?? []).map(({ value, host }) => ({ value, host }));
}

type Conditions = NonNullable<NonNullable<ServiceEntry["status"]>["conditions"]>;

/** The conditions as they should be; undefined when they are. Times of unchanged ones stay. */
function mergeConditions(
  { status }: Extract<Resource, { kind: StatusKind }>,
  wanted: ObjectStatus,
  nowMs: number,
): Conditions | undefined {
  const { generation } = wanted;
  const before = status?.conditions ?? [];
  const own = new Set<string>(OWN_CONDITIONS[wanted.key.kind]);
  const mine = before.filter((it) => own.has(it.type) && !isLeft(it, wanted));
  const known = (condition: Condition) =>
    mine.find((it) => saysSame(it, condition) && it["observedGeneration"] === generation);
  const { conditions } = wanted;
  if (mine.length === conditions.length && conditions.every(known)) return undefined;
  const fresh = {
    lastTransitionTime: new Date(nowMs).toISOString(),
    ...(generation !== undefined && { observedGeneration: generation }),
  };
  return [
    ...before.filter((it) => !mine.includes(it)),
    ...conditions.map((condition) => known(condition) ?? { ...condition, ...fresh }),
  ];
}

/** Not known again yet, as after a restart: what was found of this generation stands until it is. */
function isLeft(written: Conditions[number], wanted: ObjectStatus): boolean {
  const { conditions, enforcement, generation } = wanted;
  const undecided = enforcement !== undefined && conditions.every(({ type }) => type !== APPLIED);
  return undecided && written.type === APPLIED && written["observedGeneration"] === generation;
}

function saysSame(written: Conditions[number], wanted: Condition): boolean {
  return (
    written.type === wanted.type &&
    written.status === wanted.status &&
    written.reason === wanted.reason &&
    written.message === wanted.message
  );
}
