// The Gateway API's kinds as far as the mesh reads them: where a waypoint or a gateway of a network is, and
// who may use it. Loose: what the gateways themselves make of the rest is their own.

import { z } from "zod";
import { conditions, labelSelector, objectMeta, port, stringMap } from "./meta.ts";

const apiVersion = z.enum(["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]);

const address = z.looseObject({ type: z.string().default("IPAddress"), value: z.string() });

const listener = z.looseObject({
  name: z.string(),
  port,
  protocol: z.string(),
  hostname: z.string().optional(),
  tls: z.looseObject({ mode: z.enum(["Terminate", "Passthrough"]).optional() }).optional(),
  allowedRoutes: z
    .looseObject({
      namespaces: z
        .looseObject({
          from: z.enum(["All", "Selector", "Same", "None"]).optional(),
          selector: labelSelector.optional(),
        })
        .optional(),
    })
    .optional(),
});

export const gatewayClass = z.looseObject({
  apiVersion,
  kind: z.literal("GatewayClass"),
  metadata: objectMeta,
  spec: z.looseObject({ controllerName: z.string() }),
});

export const gateway = z.looseObject({
  apiVersion,
  kind: z.literal("Gateway"),
  metadata: objectMeta,
  spec: z.looseObject({
    gatewayClassName: z.string(),
    listeners: z.array(listener).min(1, "a Gateway needs at least one listener"),
    addresses: z.array(address).optional(),
    infrastructure: z
      .looseObject({ labels: stringMap.optional(), annotations: stringMap.optional() })
      .optional(),
  }),
  status: z
    .looseObject({ addresses: z.array(address).optional(), conditions: conditions.optional() })
    .optional(),
});
