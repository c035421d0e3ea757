// What a peer or a CA hands us as text: CSRs, chains, SPIFFE URIs. Refused with an Error, or sound.

import { assert } from "../process/assert.ts";
import { certificateFromChain } from "./certificate.ts";
import { createCsr, parseCsr } from "./csr.ts";
import { parseSpiffeId, spiffeId } from "./identity.ts";

export const name = "tls-texts";

const IDENTITY = { trustDomain: "td", namespace: "n", serviceAccount: "s" };
const { csrPem, keyPem } = createCsr(IDENTITY);

export function corpus(): Uint8Array[] {
  return [Buffer.from(csrPem), Buffer.from(spiffeId(IDENTITY))];
}

export function fuzz(data: Uint8Array): void {
  const text = Buffer.from(data).toString("latin1");
  const identity = parseSpiffeId(text);
  assert(
    identity === undefined || spiffeId(identity) === text,
    "a SPIFFE ID is read back as written",
  );
  throwsOnlyErrors(() => parseCsr(text));
  throwsOnlyErrors(() => certificateFromChain(IDENTITY, keyPem, [text, text]));
}

function throwsOnlyErrors(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    assert(error instanceof Error, "a refusal is an Error");
  }
}
