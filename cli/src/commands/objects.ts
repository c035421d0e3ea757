// `ambit local apply|delete|get|label`: the objects of the local mesh, in kubectl's manner.

import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { stringify } from "yaml";
import { findKind, KINDS, type Resource, type ResourceKind } from "@ambit/api/resources/kinds.ts";
import { UserError } from "@ambit/common/process/errors.ts";
import { FolderStore } from "@ambit/common/resources/folder-store.ts";
import { keyOf, type ResourceKey } from "@ambit/common/resources/source.ts";
import { applyResources } from "../local/apply.ts";
import { netnsPath, podNetns, type Home } from "../local/home.ts";
import { readManifests } from "../local/manifests.ts";
import { isReady, isTerminal } from "../local/pod-facts.ts";
import { requireRunning } from "../local/run-file.ts";
import { printJson, renderTable } from "../output/table.ts";
import { columnsOf } from "./object-columns.ts";

const WAIT_POLL_MS = 50;
const READY_TIMEOUT_MS = 60_000;
const GONE_TIMEOUT_MS = 15_000;

function openStore(home: Home): FolderStore {
  requireRunning(home);
  return new FolderStore(home.manifests);
}

export async function apply(home: Home, files: readonly string[], wait: boolean): Promise<void> {
  if (files.length === 0) throw new UserError("name the manifests to apply with -f", 2);
  const store = openStore(home);
  const resources = readManifests(files);
  for (const { key, outcome } of await applyResources(store, resources)) {
    console.log(`${describe(key)} ${outcome}`);
  }
  if (wait) await podsReady(store);
}

async function podsReady(store: FolderStore): Promise<void> {
  const deadlineMs = Date.now() + READY_TIMEOUT_MS;
  for (;;) {
    const late = unready(store);
    if (late.length === 0) return;
    if (Date.now() > deadlineMs) {
      throw new UserError(`not ready after ${READY_TIMEOUT_MS / 1000} s: ${late.join(", ")}`);
    }
    await delay(WAIT_POLL_MS);
  }
}

function unready(store: FolderStore): string[] {
  const pods = store.list("Pod").filter((pod) => !isTerminal(pod) && !isReady(pod));
  const deployments = store.list("Deployment").filter((deployment) => {
    const { status } = deployment as { status?: { readyReplicas?: number } };
    return (status?.readyReplicas ?? 0) < deployment.spec.replicas;
  });
  return [...pods, ...deployments].map((resource) => describe(keyOf(resource)));
}

/** Deletes what manifests or names say; returns when the pods among it are gone. */
export async function remove(
  home: Home,
  kindText: string | undefined,
  names: readonly string[],
  options: { readonly file: readonly string[]; readonly namespace?: string },
): Promise<void> {
  if ((kindText === undefined) === (options.file.length === 0)) {
    throw new UserError("say what to delete: either -f FILE or KIND NAME", 2);
  }
  const store = openStore(home);
  const keys =
    kindText === undefined
      ? readManifests(options.file).map(keyOf)
      : names.map((name) => findOne(store, { kind: kindText, name, namespace: options.namespace }));
  if (keys.length === 0) throw new UserError(`say which ${kindText} to delete`, 2);
  const doomed = keys.flatMap((key) => [...contentsOf(store, key), key]);
  let missing = 0;
  for (const key of keys.flatMap((each) => [...contentsOf(store, each), each])) {
    const deleted = await store.delete(key);
    if (!deleted) missing++;
    console.log(`${describe(key)} ${deleted ? "deleted" : "not found"}`);
  }
  await podsGone(home, doomed);
  if (missing > 0 && missing === doomed.length) throw new UserError("nothing was there to delete");
}

/** What goes with a namespace: everything in it. */
function contentsOf(store: FolderStore, { kind, name }: ResourceKey): ResourceKey[] {
  if (kind !== "Namespace") return [];
  return (Object.keys(KINDS) as ResourceKind[])
    .filter((each) => KINDS[each].namespaced)
    .flatMap((each) => store.list(each).map((resource): ResourceKey => keyOf(resource)))
    .filter(({ namespace }) => namespace === name);
}

async function podsGone(home: Home, keys: readonly ResourceKey[]): Promise<void> {
  const paths = keys
    .filter(({ kind }) => kind === "Pod")
    .map(({ namespace, name }) => netnsPath(podNetns(home, namespace, name)));
  const deadlineMs = Date.now() + GONE_TIMEOUT_MS;
  while (paths.some((path) => existsSync(path)) && Date.now() < deadlineMs)
    await delay(WAIT_POLL_MS);
}

interface GetOptions {
  readonly namespace?: string;
  readonly output: "table" | "yaml" | "json";
}

export function get(
  home: Home,
  kindText: string,
  name: string | undefined,
  { namespace, output }: GetOptions,
): void {
  const store = openStore(home);
  const kind = parseKind(kindText);
  const all: readonly Resource[] = store.list(kind);
  const found = all.filter(
    ({ metadata }) =>
      (namespace === undefined || metadata.namespace === namespace) &&
      (name === undefined || metadata.name === name),
  );
  if (name !== undefined && found.length === 0) throw notFound(kind, name, namespace);
  const single = name !== undefined && found.length === 1 ? found[0] : undefined;
  const value = single ?? { apiVersion: "v1", kind: "List", items: found };
  if (output === "json") printJson(value);
  else if (output === "yaml") process.stdout.write(stringify(value));
  else if (found.length === 0) console.log(`no ${KINDS[kind].plural}`);
  else console.log(renderTable(columnsOf(kind, Date.now()), found));
}

/** Sets and removes labels of one object. */
export async function label(
  home: Home,
  target: ObjectName,
  changes: readonly string[],
): Promise<void> {
  const parsed = changes.map(parseLabel);
  const store = openStore(home);
  const key = findOne(store, target);
  await store.patch(key, (resource) => {
    const labels = { ...resource.metadata.labels };
    for (const { name, value } of parsed) {
      if (value === undefined) delete labels[name];
      else labels[name] = value;
    }
    return { ...resource, metadata: { ...resource.metadata, labels } };
  });
  console.log(`${describe(key)} labeled`);
}

const LABEL_NAME =
  /^([a-z0-9]([a-z0-9.-]*[a-z0-9])?\/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/;

/** KEY=VALUE, or KEY- to remove; throws a usage error for anything else. */
export function parseLabel(text: string): { name: string; value: string | undefined } {
  const equals = text.indexOf("=");
  const name = equals >= 0 ? text.slice(0, equals) : text.replace(/-$/, "");
  const value = equals >= 0 ? text.slice(equals + 1) : undefined;
  const shaped = equals >= 0 || text.endsWith("-");
  if (!shaped || !LABEL_NAME.test(name) || (value !== undefined && !LABEL_VALUE.test(value))) {
    throw new UserError(`"${text}" is no label: write KEY=VALUE, or KEY- to remove it`, 2);
  }
  return { name, value };
}

interface ObjectName {
  readonly kind: string;
  readonly name: string;
  readonly namespace: string | undefined;
}

/** The one object that is meant. Without a namespace its name must be unique. */
function findOne(store: FolderStore, { kind: kindText, name, namespace }: ObjectName): ResourceKey {
  const kind = parseKind(kindText);
  const all: readonly Resource[] = store.list(kind);
  const found = all.filter(
    ({ metadata }) =>
      metadata.name === name && (namespace === undefined || metadata.namespace === namespace),
  );
  const [only, second] = found;
  if (only === undefined) throw notFound(kind, name, namespace);
  if (second !== undefined) {
    const namespaces = found.map(({ metadata }) => metadata.namespace).join(", ");
    throw new UserError(`${kind} ${name} exists in ${namespaces}: say which with -n`, 2);
  }
  return keyOf(only);
}

function notFound(kind: ResourceKind, name: string, namespace: string | undefined): UserError {
  const where = namespace === undefined ? "" : ` in namespace ${namespace}`;
  return new UserError(`${kind} "${name}" does not exist${where}`);
}

function parseKind(text: string): ResourceKind {
  const kind = findKind(text);
  if (kind !== undefined) return kind;
  const plurals = Object.values(KINDS).map(({ plural }) => plural);
  throw new UserError(`"${text}" is no kind of object: use one of ${plurals.join(", ")}`, 2);
}

function describe({ kind, namespace, name }: ResourceKey): string {
  return `${kind.toLowerCase()}/${name}${namespace === "" ? "" : ` in ${namespace}`}`;
}
