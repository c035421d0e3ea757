// Certificate revocation lists (RFC 5280 §5) as ztunnel uses them: which serial numbers an issuer took
// back. Whether a list is still fresh does not matter: what was revoked stays revoked (ztunnel §5.3).

import { type KeyObject, verify } from "node:crypto";
import { errorMessage } from "../process/errors.ts";
import { DerReader, type Element, integerHex, Tag } from "./der-reader.ts";
import { pemToDer, splitPem } from "./pem.ts";

const PEM_LABEL = "X509 CRL";

/** A list of a million certificates is about 40 MB. */
export const CRL_FILE_BYTES_MAX = 64 * 2 ** 20;

/** Keys whose verdict is remembered: one issuer has one, and few others share its name. */
const KEYS_REMEMBERED_MAX = 64;

/** Signature algorithms, DER of the OID in hexadecimal, and their digest. */
const DIGESTS: ReadonlyMap<string, string | null> = new Map([
  ["2a8648ce3d040302", "sha256"],
  ["2a8648ce3d040303", "sha384"],
  ["2a8648ce3d040304", "sha512"],
  ["2a864886f70d01010b", "sha256"],
  ["2a864886f70d01010c", "sha384"],
  ["2a864886f70d01010d", "sha512"],
  ["2b6570", null],
]);

const OID_DISTRIBUTION_POINT = "551d1c";
const OID_CERTIFICATE_ISSUER = "551d1d";

export class RevocationList {
  /** The issuer's name, DER in hexadecimal. */
  readonly issuer: string;
  /** Hexadecimal without leading zeros. */
  readonly serials: ReadonlySet<string>;
  readonly #signed: Buffer;
  readonly #digest: string | null;
  readonly #signature: Buffer;
  readonly #verdicts = new Map<string, boolean>();

  /** Parses one list. Throws an Error that says what is wrong with it. */
  constructor(der: Buffer) {
    const reader = new DerReader(der);
    const list = reader.enter(Tag.sequence);
    if (!reader.done) throw new Error("something follows the list");
    const tbs = list.read(Tag.sequence);
    this.#signed = list.whole(tbs);
    this.#digest = digestOf(list.enter(Tag.sequence));
    const bits = list.content(list.read(Tag.bitString));
    if (bits[0] !== 0) throw new Error("malformed signature");
    this.#signature = bits.subarray(1);
    const { issuer, serials } = parseBody(list.inside(tbs));
    this.issuer = issuer;
    this.serials = serials;
  }

  /** True when `key` signed the list: another CA may have the same name. */
  isSignedBy(key: KeyObject): boolean {
    const keyText = key.export({ type: "spki", format: "der" }).toString("base64");
    if (this.#verdicts.size >= KEYS_REMEMBERED_MAX) this.#verdicts.clear();
    return this.#verdicts.getOrInsertComputed(keyText, () => {
      try {
        return verify(this.#digest, this.#signed, key, this.#signature);
      } catch {
        return false;
      }
    });
  }
}

/**
 * The lists of a file: PEM with any number of blocks, or one in DER; none in an empty file or one of
 * other blocks. Throws an Error that says which list is malformed.
 */
export function parseRevocationLists(file: Buffer): RevocationList[] {
  if (file.length > CRL_FILE_BYTES_MAX)
    throw new Error(`the file is larger than ${CRL_FILE_BYTES_MAX} bytes`);
  return derLists(file).map((der, index) => {
    try {
      return new RevocationList(der);
    } catch (error) {
      throw new Error(`list ${index + 1}: ${errorMessage(error)}`, { cause: error });
    }
  });
}

function derLists(file: Buffer): Buffer[] {
  if (file.length === 0) return [];
  if (!file.subarray(0, 64).toString("latin1").trimStart().startsWith("-----BEGIN")) return [file];
  const text = file.toString("latin1");
  const blocks = splitPem(text, PEM_LABEL);
  if (blocks.length !== text.split(`-----BEGIN ${PEM_LABEL}-----`).length - 1)
    throw new Error("a PEM block has no end");
  return blocks.map((block) => pemToDer(block, PEM_LABEL)!);
}

function digestOf(algorithm: DerReader): string | null {
  const oid = algorithm.content(algorithm.read(Tag.objectId)).toString("hex");
  const digest = DIGESTS.get(oid);
  if (digest === undefined)
    throw new Error("its signature algorithm is not supported: use ECDSA, RSA or Ed25519");
  return digest;
}

function parseBody(body: DerReader): { issuer: string; serials: Set<string> } {
  if (body.nextTag === Tag.integer) body.read();
  body.read(Tag.sequence);
  const issuer = body.whole(body.read(Tag.sequence)).toString("hex");
  readTime(body);
  if (body.nextTag === Tag.utcTime || body.nextTag === Tag.generalizedTime) readTime(body);
  const serials = new Set<string>();
  if (body.nextTag === Tag.sequence) readEntries(body.enter(Tag.sequence), serials);
  if (!body.done) refuseUnknown(body.enter(0xa0).enter(Tag.sequence));
  return { issuer, serials };
}

function readTime(body: DerReader): void {
  const { tag } = body.read();
  if (tag !== Tag.utcTime && tag !== Tag.generalizedTime) throw new Error("a time is expected");
}

function readEntries(entries: DerReader, serials: Set<string>): void {
  while (!entries.done) {
    const entry = entries.enter(Tag.sequence);
    serials.add(integerHex(entry.content(entry.read(Tag.integer))));
    readTime(entry);
    if (!entry.done) refuseUnknown(entry.enter(Tag.sequence));
  }
}

/**
 * A critical extension that we do not know forbids using the list (§5.2): a delta is no list by itself,
 * an indirect one speaks of other issuers. A distribution point only narrows what is covered.
 */
function refuseUnknown(extensions: DerReader): void {
  while (!extensions.done) {
    const extension = extensions.enter(Tag.sequence);
    const oid = extension.content(extension.read(Tag.objectId)).toString("hex");
    const critical = extension.nextTag === Tag.boolean && isTrue(extension);
    const value = extension.read(Tag.octetString);
    if (!critical) continue;
    const known = oid === OID_DISTRIBUTION_POINT && !isIndirect(extension.inside(value));
    if (known) continue;
    const what = oid === OID_CERTIFICATE_ISSUER || oid === OID_DISTRIBUTION_POINT;
    throw new Error(
      what ? "indirect lists are not supported" : "it has a critical extension we do not know",
    );
  }
}

function isTrue(reader: DerReader): boolean {
  const element: Element = reader.read(Tag.boolean);
  return reader.content(element)[0] !== 0;
}

/** IssuingDistributionPoint, field indirectCRL [4] (§5.2.5). */
function isIndirect(value: DerReader): boolean {
  const point = value.enter(Tag.sequence);
  while (!point.done) {
    const field = point.read();
    if (field.tag === 0x84) return point.content(field)[0] !== 0;
  }
  return false;
}
