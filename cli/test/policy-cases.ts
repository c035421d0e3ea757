// PeerAuthentication and AuthorizationPolicy as Istio means them: each case is what a user applies, and
// who then reaches the pod far.shop. Run on the engine (policy-cases.test.ts), and through real pods where
// no exact address is needed (policy-cases.netns.test.ts).

/** Who reaches the pod: client.shop and peer.friends are in the mesh, legacy.outside is not. */
export interface Reach {
  readonly client: boolean;
  readonly peer: boolean;
  readonly legacy: boolean;
}

export interface PolicyCase {
  readonly name: string;
  /** Manifests, applied together. */
  readonly policies: readonly string[];
  readonly port: number;
  readonly reach: Reach;
}

export const MAIN_PORT = 8080;
export const OTHER_PORT = 9001;

const ROOT = "istio-system";
const ALL = "yyy";
const NOBODY = "nnn";
/** The two with an identity. */
const MESH = "yyn";
const CLIENT = "ynn";
const PEER = "nyn";
const LEGACY = "nny";
const NOT_CLIENT = "nyy";
const NOT_PEER = "yny";

/** `who`: y or n for client, peer and legacy. */
function row(name: string, who: string, policies: string | string[], port = MAIN_PORT): PolicyCase {
  const [client, peer, legacy] = who.split("").map((letter) => letter === "y");
  return {
    name,
    policies: [policies].flat(),
    port,
    reach: { client: client!, peer: peer!, legacy: legacy! },
  };
}

const FAR = "selector: { matchLabels: { app: far } }";
const OTHER = "selector: { matchLabels: { app: other } }";

/** A PeerAuthentication; `mode` may be followed by more of its spec. */
function mtls(namespace: string, mode: string, more = "", name = "default"): string {
  return object("PeerAuthentication", namespace, name, `{ mtls: { mode: ${mode} }, ${more} }`);
}

interface PolicyOptions {
  readonly namespace?: string;
  readonly name?: string;
  readonly more?: string;
  readonly annotations?: string;
}

/** An AuthorizationPolicy in shop without a selector. */
function policy(action: string, rules: string, options: PolicyOptions = {}): string {
  const { namespace = "shop", name = "p", more = "", annotations } = options;
  const spec = `{ action: ${action}, rules: ${rules}, ${more} }`;
  return object("AuthorizationPolicy", namespace, name, spec, annotations);
}

const allow = (rules: string, options?: PolicyOptions) => policy("ALLOW", rules, options);
const deny = (rules: string, options?: PolicyOptions) => policy("DENY", rules, options);

function object(
  kind: string,
  namespace: string,
  name: string,
  spec: string,
  annotations = "",
): string {
  return `apiVersion: security.istio.io/v1
kind: ${kind}
metadata: { name: ${name}, namespace: ${namespace}, annotations: { ${annotations} } }
spec: ${spec}
`;
}

const from = (...sources: string[]) =>
  `from: [${sources.map((s) => `{ source: { ${s} } }`).join()}]`;
const to = (...operations: string[]) =>
  `to: [${operations.map((o) => `{ operation: { ${o} } }`).join()}]`;
const when = (key: string, values: string, field = "values") =>
  `when: [{ key: ${key}, ${field}: [${values}] }]`;
const rules = (...list: string[]) => `[${list.map((rule) => `{ ${rule} }`).join()}]`;

const CLIENT_PRINCIPAL = "cluster.local/ns/shop/sa/client";
const byClient = from(`principals: [${CLIENT_PRINCIPAL}]`);
const MESH_STRICT = mtls(ROOT, "STRICT");

const PEER_AUTHENTICATION: readonly PolicyCase[] = [
  row("nothing", ALL, []),
  row("mesh STRICT", MESH, MESH_STRICT),
  row("mesh PERMISSIVE", ALL, mtls(ROOT, "PERMISSIVE")),
  row("mesh DISABLE is PERMISSIVE", ALL, mtls(ROOT, "DISABLE")),
  row("mesh UNSET", ALL, mtls(ROOT, "UNSET")),
  row("namespace STRICT", MESH, mtls("shop", "STRICT")),
  row("namespace STRICT on another port", MESH, mtls("shop", "STRICT"), OTHER_PORT),
  row("namespace DISABLE is PERMISSIVE", ALL, mtls("shop", "DISABLE")),
  row("another namespace's STRICT", ALL, mtls("friends", "STRICT")),
  row("mesh STRICT, namespace PERMISSIVE", ALL, [MESH_STRICT, mtls("shop", "PERMISSIVE")]),
  row("mesh STRICT, namespace DISABLE", ALL, [MESH_STRICT, mtls("shop", "DISABLE")]),
  row("mesh STRICT, namespace UNSET inherits", MESH, [MESH_STRICT, mtls("shop", "UNSET")]),
  row("mesh PERMISSIVE, namespace STRICT", MESH, [
    mtls(ROOT, "PERMISSIVE"),
    mtls("shop", "STRICT"),
  ]),
  row("workload STRICT", MESH, mtls("shop", "STRICT", FAR)),
  row("another workload's STRICT", ALL, mtls("shop", "STRICT", OTHER)),
  row("an empty selector is the namespace's", MESH, mtls("shop", "STRICT", "selector: {}")),
  row("a selector in the root namespace selects nobody elsewhere", ALL, mtls(ROOT, "STRICT", FAR)),
  row("namespace STRICT, workload PERMISSIVE", ALL, [
    mtls("shop", "STRICT"),
    mtls("shop", "PERMISSIVE", FAR, "w"),
  ]),
  row("namespace STRICT, workload DISABLE", ALL, [
    mtls("shop", "STRICT"),
    mtls("shop", "DISABLE", FAR, "w"),
  ]),
  row("namespace STRICT, workload UNSET inherits", MESH, [
    mtls("shop", "STRICT"),
    mtls("shop", "UNSET", FAR, "w"),
  ]),
  row("namespace PERMISSIVE, workload STRICT", MESH, [
    mtls("shop", "PERMISSIVE"),
    mtls("shop", "STRICT", FAR, "w"),
  ]),
  row("mesh STRICT, namespace PERMISSIVE, workload STRICT", MESH, [
    MESH_STRICT,
    mtls("shop", "PERMISSIVE"),
    mtls("shop", "STRICT", FAR, "w"),
  ]),
  ...([MAIN_PORT, OTHER_PORT] as const).flatMap((port) => {
    const main = port === MAIN_PORT;
    const at = main ? "on that port" : "on another port";
    const ports = (mode: string) => `${FAR}, portLevelMtls: { "${MAIN_PORT}": { mode: ${mode} } }`;
    return [
      row(
        `STRICT but a port PERMISSIVE: ${at}`,
        main ? ALL : MESH,
        mtls("shop", "STRICT", ports("PERMISSIVE")),
        port,
      ),
      row(
        `STRICT but a port DISABLE: ${at}`,
        main ? ALL : MESH,
        mtls("shop", "STRICT", ports("DISABLE")),
        port,
      ),
      row(`STRICT and a port STRICT: ${at}`, MESH, mtls("shop", "STRICT", ports("STRICT")), port),
      row(`STRICT and a port UNSET: ${at}`, MESH, mtls("shop", "STRICT", ports("UNSET")), port),
      row(
        `PERMISSIVE but a port STRICT: ${at}`,
        main ? MESH : ALL,
        mtls("shop", "PERMISSIVE", ports("STRICT")),
        port,
      ),
      row(
        `UNSET but a port STRICT: ${at}`,
        main ? MESH : ALL,
        mtls("shop", "UNSET", ports("STRICT")),
        port,
      ),
      row(
        `namespace STRICT, a workload's port PERMISSIVE: ${at}`,
        main ? ALL : MESH,
        [mtls("shop", "STRICT"), mtls("shop", "UNSET", ports("PERMISSIVE"), "w")],
        port,
      ),
    ];
  }),
];

const FORMS: readonly PolicyCase[] = [
  row("ALLOW without rules allows nobody", NOBODY, allow("[]")),
  row("an empty spec allows nobody", NOBODY, object("AuthorizationPolicy", "shop", "p", "{}")),
  row("ALLOW of an empty rule allows everybody", ALL, allow("[{}]")),
  row("DENY without rules denies nobody", ALL, deny("[]")),
  row("DENY of an empty rule denies everybody", NOBODY, deny("[{}]")),
  row(
    "the action is ALLOW when it is not said",
    CLIENT,
    object("AuthorizationPolicy", "shop", "p", `{ rules: ${rules(byClient)} }`),
  ),
  row("of another namespace", ALL, deny("[{}]", { namespace: "friends" })),
  row("of the root namespace", NOBODY, deny("[{}]", { namespace: ROOT })),
  row("for this workload", NOBODY, deny("[{}]", { more: FAR })),
  row("for another workload", ALL, deny("[{}]", { more: OTHER })),
  row(
    "for all labels together",
    ALL,
    deny("[{}]", { more: "selector: { matchLabels: { app: far, version: v9 } }" }),
  ),
  row(
    "for a workload, from the root namespace",
    NOBODY,
    deny("[{}]", { namespace: ROOT, more: FAR }),
  ),
  row(
    "an empty selector selects the whole namespace",
    NOBODY,
    deny("[{}]", { more: "selector: {}" }),
  ),
  row(
    "attached to a service works at its waypoint only",
    ALL,
    deny("[{}]", { more: "targetRefs: [{ kind: Service, group: '', name: far }]" }),
  ),
  row("AUDIT decides nothing", ALL, policy("AUDIT", "[{}]")),
  row("a dry run decides nothing", ALL, deny("[{}]", { annotations: "istio.io/dry-run: 'true'" })),
  row(
    "a dry run of ALLOW does not close",
    ALL,
    allow("[]", { annotations: "istio.io/dry-run: 'true'" }),
  ),
  row("rules are alternatives", MESH, allow(rules(byClient, from("namespaces: [friends]")))),
  row(
    "sources are alternatives",
    MESH,
    allow(rules(from(`principals: [${CLIENT_PRINCIPAL}]`, "namespaces: [friends]"))),
  ),
  row("values are alternatives", MESH, allow(rules(from("namespaces: [shop, friends]")))),
  row(
    "fields of a source must all hold",
    NOBODY,
    allow(rules(from(`principals: [${CLIENT_PRINCIPAL}], namespaces: [friends]`))),
  ),
  row(
    "from, to and when must all hold",
    CLIENT,
    allow(rules(`${byClient}, ${to('ports: ["8080"]')}, ${when("source.namespace", "shop")}`)),
  ),
  row(
    "one of them that does not hold is enough",
    NOBODY,
    allow(rules(`${byClient}, ${to('ports: ["9000"]')}`)),
  ),
];

const SOURCES: readonly PolicyCase[] = [
  ["principals: [cluster.local/ns/shop/sa/client]", CLIENT],
  ["principals: [cluster.local/ns/shop/sa/*]", CLIENT],
  ["principals: ['*/sa/client']", CLIENT],
  ["principals: ['*']", MESH],
  ["principals: [cluster.local/*]", MESH],
  ["principals: ['spiffe://cluster.local/ns/shop/sa/client']", CLIENT],
  ["principals: [other.domain/ns/shop/sa/client]", NOBODY],
  ["principals: [cluster.local/ns/shop/sa/clien]", NOBODY],
  ["principals: [CLUSTER.LOCAL/ns/shop/sa/client]", NOBODY],
  ["notPrincipals: [cluster.local/ns/shop/sa/client]", NOT_CLIENT],
  ["notPrincipals: ['*']", LEGACY],
  ["notPrincipals: ['*/sa/peer']", NOT_PEER],
  ["namespaces: [shop]", CLIENT],
  ["namespaces: [friends]", PEER],
  ["namespaces: [sh*]", CLIENT],
  ["namespaces: ['*ends']", PEER],
  ["namespaces: ['*']", MESH],
  ["namespaces: [outside]", NOBODY],
  ["notNamespaces: [shop]", NOT_CLIENT],
  ["notNamespaces: ['*']", LEGACY],
  ["serviceAccounts: [client]", CLIENT],
  ["serviceAccounts: [shop/client]", CLIENT],
  ["serviceAccounts: [friends/peer]", PEER],
  ["serviceAccounts: [peer]", NOBODY],
  ["notServiceAccounts: [client]", NOT_CLIENT],
  ["notServiceAccounts: [friends/peer]", NOT_PEER],
  ["ipBlocks: [10.244.1.0/24]", MESH],
  ["ipBlocks: [10.244.2.0/24]", LEGACY],
  ["ipBlocks: [10.244.0.0/16]", ALL],
  ["ipBlocks: [192.168.0.0/16]", NOBODY],
  ["ipBlocks: ['fd00:10:244::/48']", NOBODY],
  ["ipBlocks: [10.244.1.0/24, 10.244.2.0/24]", ALL],
  ["notIpBlocks: [10.244.1.0/24]", LEGACY],
  ["ipBlocks: [10.244.0.0/16], notIpBlocks: [10.244.2.0/24]", MESH],
  ["namespaces: [shop], notPrincipals: ['*/sa/client']", NOBODY],
].flatMap(([source, who]) => [
  row(`ALLOW from ${source}`, who!, allow(rules(from(source!)))),
  row(`DENY from ${source}`, opposite(who!), deny(rules(from(source!)))),
]);

const OPERATIONS: readonly PolicyCase[] = [
  ['ports: ["8080"]', ALL],
  ['ports: ["80"]', NOBODY],
  ['ports: ["9001"]', NOBODY],
  ['ports: ["9001", "8080"]', ALL],
  ['notPorts: ["8080"]', NOBODY],
  ['notPorts: ["9001"]', ALL],
].flatMap(([operation, who]) => [
  row(`ALLOW to ${operation}`, who!, allow(rules(to(operation!)))),
  row(`DENY to ${operation}`, opposite(who!), deny(rules(to(operation!)))),
]);

const CONDITIONS: readonly PolicyCase[] = [
  [when("source.ip", "10.244.1.0/24"), MESH],
  [when("source.ip", "10.244.1.0/24", "notValues"), LEGACY],
  [when("source.namespace", "shop"), CLIENT],
  [when("source.namespace", "shop", "notValues"), NOT_CLIENT],
  [when("source.principal", CLIENT_PRINCIPAL), CLIENT],
  [when("source.principal", "'*'"), MESH],
  [when("source.principal", "'*'", "notValues"), LEGACY],
  [when("destination.port", "'8080'"), ALL],
  [when("destination.port", "'8080'", "notValues"), NOBODY],
  [when("destination.ip", "10.244.2.0/24"), ALL],
  [when("destination.ip", "10.96.0.0/16"), NOBODY],
].flatMap(([condition, who]) => [
  row(`ALLOW ${condition}`, who!, allow(rules(condition!))),
  row(`DENY ${condition}`, opposite(who!), deny(rules(condition!))),
]);

const SEVERAL: readonly PolicyCase[] = [
  row("ALLOWs add up", MESH, [
    allow(rules(byClient), { name: "a" }),
    allow(rules(from("namespaces: [friends]")), { name: "b" }),
  ]),
  row("DENY beats ALLOW", PEER, [
    allow("[{}]", { name: "a" }),
    deny(rules(byClient), { name: "b" }),
    deny(rules(from("notPrincipals: ['*']")), { name: "c" }),
  ]),
  row("a DENY elsewhere in the mesh beats ALLOW here", NOT_CLIENT, [
    allow("[{}]", { name: "a" }),
    deny(rules(byClient), { name: "b", namespace: ROOT }),
  ]),
  row("ALLOW in the root namespace and here add up", MESH, [
    allow(rules(byClient), { name: "a", namespace: ROOT }),
    allow(rules(from("namespaces: [friends]")), { name: "b" }),
  ]),
  row("an ALLOW for another workload does not close this one", ALL, allow("[]", { more: OTHER })),
  row("ALLOW for the workload and the namespace add up", MESH, [
    allow(rules(byClient), { name: "a", more: FAR }),
    allow(rules(from("namespaces: [friends]")), { name: "b" }),
  ]),
  row("STRICT and ALLOW must both let in", NOBODY, [
    mtls("shop", "STRICT"),
    allow(rules(from("notPrincipals: ['*']"))),
  ]),
  row("STRICT with ALLOW of everybody", MESH, [mtls("shop", "STRICT"), allow("[{}]")]),
  row("a permissive port under STRICT still asks DENY", NOT_CLIENT, [
    mtls("shop", "STRICT", `${FAR}, portLevelMtls: { "8080": { mode: PERMISSIVE } }`),
    deny(rules(byClient)),
  ]),
];

/** ztunnel does not see HTTP: ALLOW gets stricter, DENY broader, and the status says so. */
const LAYER_7: readonly PolicyCase[] = [
  row("ALLOW of a method allows nobody", NOBODY, allow(rules(to("methods: [GET]")))),
  row(
    "ALLOW of a path to a client allows nobody",
    NOBODY,
    allow(rules(`${byClient}, ${to("paths: [/a]")}`)),
  ),
  row("ALLOW keeps its other rules", CLIENT, allow(rules(to("hosts: [a]"), byClient))),
  row(
    "ALLOW of a request principal allows nobody",
    NOBODY,
    allow(rules(from("requestPrincipals: ['*']"))),
  ),
  row("ALLOW by header allows nobody", NOBODY, allow(rules(when("'request.headers[x]'", "y")))),
  row(
    "ALLOW of remoteIpBlocks allows nobody",
    NOBODY,
    allow(rules(from("remoteIpBlocks: [10.0.0.0/8]"))),
  ),
  row(
    "DENY of a method to a client denies the client all",
    NOT_CLIENT,
    deny(rules(`${byClient}, ${to("methods: [GET]")}`)),
  ),
  row(
    "DENY of a method on a port denies the port",
    NOBODY,
    deny(rules(to('methods: [GET], ports: ["8080"]'))),
  ),
  row("DENY of a method on another port", ALL, deny(rules(to('methods: [GET], ports: ["9000"]')))),
  row("DENY of nothing but a method denies nobody", ALL, deny(rules(to("methods: [GET]")))),
  row(
    "DENY of a path from a namespace denies the namespace",
    NOT_CLIENT,
    deny(rules(`${from("namespaces: [shop]")}, ${to("notPaths: [/a]")}`)),
  ),
];

function opposite(who: string): string {
  return who.replaceAll(/./g, (letter) => (letter === "y" ? "n" : "y"));
}

export const POLICY_CASES: readonly PolicyCase[] = [
  ...PEER_AUTHENTICATION,
  ...FORMS,
  ...SOURCES,
  ...OPERATIONS,
  ...CONDITIONS,
  ...SEVERAL,
  ...LAYER_7,
];
