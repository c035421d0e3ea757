// Objects that select workloads by labels, found from the labels: the question "which services is this pod
// of" without asking every service. An object is filed under one of the pairs that it wants.

import { type Labels, labelsMatch } from "../translate/labels.ts";

interface Entry<T> {
  readonly selector: Labels;
  readonly value: T;
}

/** Stands for the pair of a selector that wants nothing, and so matches everything. */
const ANY = "";

export class SelectorIndex<T> {
  /** Namespace, then a pair ("app=web"), then key. */
  readonly #buckets = new Map<string, Map<string, Map<string, Entry<T>>>>();

  put(namespace: string, key: string, selector: Labels, value: T): void {
    this.#buckets
      .getOrInsertComputed(namespace, () => new Map<string, Map<string, Entry<T>>>())
      .getOrInsertComputed(pairOf(selector), () => new Map<string, Entry<T>>())
      .set(key, { selector, value });
  }

  /** `selector` is the one it was put with. */
  delete(namespace: string, key: string, selector: Labels): void {
    const pairs = this.#buckets.get(namespace);
    const entries = pairs?.get(pairOf(selector));
    entries?.delete(key);
    if (entries?.size === 0) pairs?.delete(pairOf(selector));
    if (pairs?.size === 0) this.#buckets.delete(namespace);
  }

  /** Everything of the namespace that selects `labels`, in no particular order. */
  *matching(namespace: string, labels: Labels): Generator<T> {
    const pairs = this.#buckets.get(namespace);
    if (pairs === undefined) return;
    for (const { value } of pairs.get(ANY)?.values() ?? []) yield value;
    for (const key in labels) {
      for (const { selector, value } of pairs.get(`${key}=${labels[key]}`)?.values() ?? []) {
        if (labelsMatch(selector, labels)) yield value;
      }
    }
  }
}

function pairOf(selector: Labels): string {
  for (const key in selector) return `${key}=${selector[key]}`;
  return ANY;
}
