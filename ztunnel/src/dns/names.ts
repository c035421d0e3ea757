// Which names a query may mean (ztunnel §3.6): itself, its Kubernetes expansions, what remains when a
// search domain is stripped, and the wildcards of each. Names are lower case without a final dot.

export interface NameCandidate {
  readonly name: string;
  /** Set when a search domain was stripped: the answer then needs a CNAME to this name. */
  readonly strippedTo?: string;
  readonly wildcard: boolean;
}

/** Every name to look up, in order of preference. */
export function nameCandidates(
  query: string,
  clientNamespace: string,
  domain: string,
): NameCandidate[] {
  const bases: { name: string; strippedTo?: string }[] = expand(query, clientNamespace, domain).map(
    (name) => ({ name }),
  );
  for (const search of searchDomains(clientNamespace, domain)) {
    if (!query.endsWith(`.${search}`)) continue;
    const stripped = query.slice(0, -search.length - 1);
    for (const name of expand(stripped, clientNamespace, domain))
      bases.push({ name, strippedTo: stripped });
  }
  return bases.flatMap((base) => [
    { ...base, wildcard: false },
    ...wildcardsOf(base.name).map((name) => ({ ...base, name, wildcard: true })),
  ]);
}

/** The search list a pod's resolver would have. */
export function searchDomains(clientNamespace: string, domain: string): string[] {
  return [`${clientNamespace}.svc.${domain}`, `svc.${domain}`, domain];
}

/** The name itself, then what Kubernetes might mean by it, by its number of labels. */
function expand(name: string, clientNamespace: string, domain: string): string[] {
  const names = [name];
  const labels = name.split(".").length;
  if (labels === 1) names.push(`${name}.${clientNamespace}.svc.${domain}`);
  if (labels === 2) names.push(`${name}.svc.${domain}`, `${name}.${clientNamespace}.svc.${domain}`);
  if (labels === 3) {
    if (name.endsWith(".svc")) names.push(`${name}.${domain}`);
    names.push(`${name}.svc.${domain}`);
  }
  if (labels === 4 && name.endsWith(".svc")) names.push(`${name}.${domain}`);
  return names;
}

/** `*.rest`, one label less each time, down to the top-level domain. */
function wildcardsOf(name: string): string[] {
  const names: string[] = [];
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1))
    names.push(`*${name.slice(dot)}`);
  return names;
}
