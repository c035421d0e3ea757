// Which names a query may mean (ztunnel §3.6): itself, its Kubernetes expansions, what remains when a
// search domain is stripped, and the wildcards of each. Names are lower case without a final dot.

export interface NameCandidate {
  readonly name: string;
  /** Set when a search domain was stripped: the answer then needs a CNAME to this name. */
  readonly strippedTo?: string;
  readonly wildcard: boolean;
}

/** Where a query comes from. */
export interface NameScope {
  readonly clientNamespace: string;
  readonly clusterDomain: string;
  /** The client's search list. */
  readonly searchDomains: readonly string[];
}

/** Every name to look up, in order of preference. */
export function* nameCandidates(query: string, scope: NameScope): Generator<NameCandidate> {
  for (const name of expand(query, scope)) yield* withWildcards({ name });
  for (const search of scope.searchDomains) {
    const strippedTo = trimDomain(query, search);
    if (strippedTo === undefined) continue;
    for (const name of expand(strippedTo, scope)) yield* withWildcards({ name, strippedTo });
  }
}

/** The search list that Kubernetes gives a pod. */
export function podSearchDomains(clientNamespace: string, clusterDomain: string): string[] {
  return [`${clientNamespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
}

/** What is left of `name` without `.domain`; undefined when it is not in that domain, or is it. */
export function trimDomain(name: string, domain: string): string | undefined {
  if (domain === "" || !name.endsWith(`.${domain}`)) return undefined;
  return name.slice(0, -domain.length - 1);
}

/** The name itself, then what Kubernetes might mean by it, by its number of labels. */
export function expand(name: string, { clientNamespace, clusterDomain }: NameScope): string[] {
  const names = [name];
  const labels = name.split(".").length;
  const svc = `svc.${clusterDomain}`;
  if (labels === 1) names.push(`${name}.${clientNamespace}.${svc}`);
  if (labels === 2) names.push(`${name}.${svc}`, `${name}.${clientNamespace}.${svc}`);
  if (labels === 3) {
    if (name.endsWith(".svc")) names.push(`${name}.${clusterDomain}`);
    names.push(`${name}.${svc}`);
  }
  if (labels === 4 && name.endsWith(".svc")) names.push(`${name}.${clusterDomain}`);
  return names;
}

function* withWildcards(base: { name: string; strippedTo?: string }): Generator<NameCandidate> {
  yield { ...base, wildcard: false };
  for (const name of wildcardsOf(base.name)) yield { ...base, name, wildcard: true };
}

/** `*.rest`, one label less each time, down to the top-level domain. */
export function wildcardsOf(name: string): string[] {
  const names: string[] = [];
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1))
    names.push(`*${name.slice(dot)}`);
  return names;
}
