// What every Kubernetes object has: apiVersion, kind and metadata. Names follow Kubernetes' own rules.

import { z } from "zod";

const NAME_LENGTH_MAX = 253;
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const DNS_SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

export const objectName = z
  .string()
  .max(NAME_LENGTH_MAX)
  .regex(DNS_SUBDOMAIN, "must be lower-case letters, digits, '-' and '.'");
export const labelName = z
  .string()
  .max(63)
  .regex(DNS_LABEL, "must be lower-case letters, digits and '-'");
export const stringMap = z.record(z.string(), z.string());
export const port = z.number().int().min(1).max(65_535);

/** Metadata: what we read; Kubernetes adds more, which is kept. */
export const objectMeta = z.looseObject({
  name: objectName,
  namespace: labelName.optional(),
  labels: stringMap.optional(),
  annotations: stringMap.optional(),
  uid: z.string().optional(),
  resourceVersion: z.string().optional(),
  generation: z.number().int().optional(),
  creationTimestamp: z.string().optional(),
  deletionTimestamp: z.string().optional(),
  ownerReferences: z
    .array(
      z.looseObject({ kind: z.string(), name: z.string(), controller: z.boolean().optional() }),
    )
    .optional(),
});

export type ObjectMeta = z.infer<typeof objectMeta>;

/** metav1.LabelSelector with matchLabels, and the expressions Kubernetes knows. */
export const labelSelector = z.strictObject({
  matchLabels: stringMap.optional(),
  matchExpressions: z
    .array(
      z.strictObject({
        key: z.string(),
        operator: z.enum(["In", "NotIn", "Exists", "DoesNotExist"]),
        values: z.array(z.string()).optional(),
      }),
    )
    .optional(),
});

/** Conditions as every status has them. */
export const conditions = z.array(
  z.looseObject({
    type: z.string(),
    status: z.enum(["True", "False", "Unknown"]),
    reason: z.string().optional(),
    message: z.string().optional(),
  }),
);
