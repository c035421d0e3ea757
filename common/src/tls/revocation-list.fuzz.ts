// A revocation file as an operator, or whoever can write where they write, leaves it.

import { assert } from "../process/assert.ts";
import { TestCa } from "../testing/test-ca.ts";
import { pemToDer } from "./pem.ts";
import { parseRevocationLists } from "./revocation-list.ts";

export const name = "revocation-list";

const ca = new TestCa();
const pem = ca.revoke("01", "7fffffffffffffff", "ff00");

export function corpus(): Uint8Array[] {
  return [pemToDer(pem, "X509 CRL")!, Buffer.from(pem), Buffer.from(pem + ca.rootPem + pem)];
}

export function fuzz(data: Uint8Array): void {
  try {
    for (const { issuer, serials } of parseRevocationLists(Buffer.from(data))) {
      assert(issuer.length <= data.length * 2, "a name fits in its file");
      assert(serials.size <= data.length, "an entry takes more than a byte");
    }
  } catch (error) {
    assert(error instanceof Error && error.name !== "AssertionError", "a refusal is an Error");
  }
}
