// For tests: Gateways, and services that use them, as YAML.

import { objectYaml, serviceYaml } from "./mesh-harness.ts";

/** A waypoint's listener. */
export const HBONE = "name: mesh, port: 15008, protocol: HBONE";

export interface GatewayOptions {
  readonly labels?: string;
  readonly annotations?: string;
  readonly listener?: string;
  readonly addresses?: string;
  readonly kind?: string;
}

/** A waypoint with an address, named as its Service would be, unless `options` say otherwise. */
export function gateway(name: string, namespace = "shop", options: GatewayOptions = {}): string {
  const {
    labels = "",
    annotations = "",
    listener = HBONE,
    addresses = `[{ type: Hostname, value: ${name}.${namespace}.svc.cluster.local }]`,
    kind = "istio-waypoint",
  } = options;
  return `${objectYaml(
    "Gateway",
    name,
    `{ gatewayClassName: ${kind}, listeners: [{ ${listener} }] }`,
    `namespace: ${namespace}, labels: { ${labels} }, annotations: { ${annotations} }`,
  ).replace(/---$/, "")}status: { addresses: ${addresses} }\n---`;
}

/** Labels that ask for a waypoint. */
export const use = (name: string, of?: string) =>
  `istio.io/use-waypoint: ${name}${of === undefined ? "" : `, istio.io/use-waypoint-namespace: ${of}`}`;

/** Service `web` of namespace shop. */
export const labelledService = (labels: string, annotations = "") =>
  serviceYaml("web").replace(
    "namespace: shop",
    `namespace: shop, labels: { ${labels} }, annotations: { ${annotations} }`,
  );
