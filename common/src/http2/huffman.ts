// HPACK's Huffman code (RFC 7541 §5.2, Appendix B). The code is canonical, so the code lengths say
// everything; encoding and decoding tables are derived from them at load time.

const LENGTHS_TEXT =
  "13,23,28,28,28,28,28,28,28,24,30,28,28,30,28,28,28,28,28,28,28,28,30,28,28,28,28,28,28,28,28,28," +
  "6,10,10,12,13,6,8,11,10,10,8,11,8,6,6,6,5,5,5,6,6,6,6,6,6,6,7,8,15,6,12,10,13,6,7,7,7,7,7,7,7,7," +
  "7,7,7,7,7,7,7,7,7,7,7,7,7,7,8,7,8,13,19,13,14,6,15,5,6,5,6,5,6,6,6,5,7,7,6,6,6,5,6,7,6,5,5,6,7,7," +
  "7,7,7,15,11,14,13,28,20,22,20,20,22,22,22,23,22,23,23,23,23,23,24,23,24,24,22,23,24,23,23,23,23," +
  "21,22,23,22,23,23,24,22,21,20,22,22,23,23,21,23,22,22,24,21,22,23,23,21,21,22,21,23,22,23,23,20," +
  "22,22,22,23,22,22,23,26,26,20,19,22,23,22,25,26,26,26,27,27,26,24,25,19,21,26,27,27,26,27,24,21," +
  "21,26,26,28,27,27,27,20,24,20,21,22,21,21,23,22,22,25,25,24,24,26,23,26,27,26,26,27,27,27,27,27," +
  "28,27,27,27,27,27,26,30";

const LENGTHS = LENGTHS_TEXT.split(",").map(Number);
const END_OF_STRING = 256;
const CODES = canonicalCodes(LENGTHS);

function canonicalCodes(lengths: readonly number[]): number[] {
  const bySize = lengths.map((length, symbol) => ({ length, symbol }));
  bySize.sort((a, b) => a.length - b.length || a.symbol - b.symbol);
  const codes = new Array<number>(lengths.length).fill(0);
  let code = 0;
  let previous = bySize[0]!.length;
  for (const { length, symbol } of bySize) {
    code *= 2 ** (length - previous);
    codes[symbol] = code++;
    previous = length;
  }
  return codes;
}

// The decoder walks four bits at a time through an automaton whose states are the tree's inner nodes.
// Each transition packs: next state (12 bits), one emitted symbol (9 bits, 256 = none), failure.

const NO_SYMBOL = 256;
const FAIL = -1;

interface Node {
  children: [Node | number | undefined, Node | number | undefined];
  state: number;
  /** All ones since the root and at most seven bits: a legal place to stop (padding). */
  padding: boolean;
}

const { transitions, accepting } = buildAutomaton();

function buildAutomaton(): { transitions: Int32Array; accepting: Uint8Array } {
  const nodes = buildTree();
  const table = new Int32Array(nodes.length * 16);
  for (const node of nodes) {
    for (let nibble = 0; nibble < 16; nibble++)
      table[node.state * 16 + nibble] = walk(nodes[0]!, node, nibble);
  }
  return {
    transitions: table,
    accepting: Uint8Array.from(nodes, ({ padding }) => Number(padding)),
  };
}

function buildTree(): Node[] {
  const nodes: Node[] = [{ children: [undefined, undefined], state: 0, padding: true }];
  CODES.forEach((code, symbol) => {
    let node = nodes[0]!;
    const length = LENGTHS[symbol]!;
    for (let depth = 1; depth < length; depth++) {
      const bit = Math.floor(code / 2 ** (length - depth)) & 1;
      let next = node.children[bit as 0 | 1] as Node | undefined;
      if (next === undefined) {
        const padding = node.padding && bit === 1 && depth <= 7;
        next = { children: [undefined, undefined], state: nodes.length, padding };
        nodes.push(next);
        node.children[bit as 0 | 1] = next;
      }
      node = next;
    }
    node.children[(code & 1) as 0 | 1] = symbol;
  });
  return nodes;
}

/** Follows four bits from `node`. At most one symbol ends within them: the shortest code has five. */
function walk(root: Node, node: Node, nibble: number): number {
  let symbol = NO_SYMBOL;
  let at = node;
  for (let bit = 3; bit >= 0; bit--) {
    const next = at.children[((nibble >> bit) & 1) as 0 | 1];
    if (next === undefined || next === END_OF_STRING) return FAIL;
    if (typeof next === "number") {
      symbol = next;
      at = root;
    } else at = next;
  }
  return (at.state << 9) | symbol;
}

/** Decodes bytes start..end; undefined for a code outside the table, EOS, or bad padding. */
export function huffmanDecode(bytes: Uint8Array, start: number, end: number): string | undefined {
  let state = 0;
  let text = "";
  for (let i = start; i < end; i++) {
    const byte = bytes[i]!;
    for (let half = 0; half < 2; half++) {
      const step = transitions[state * 16 + (half === 0 ? byte >> 4 : byte & 15)]!;
      if (step === FAIL) return undefined;
      const symbol = step & 511;
      if (symbol !== NO_SYMBOL) text += String.fromCharCode(symbol);
      state = step >> 9;
    }
  }
  return accepting[state] === 1 ? text : undefined;
}

/** Encodes Latin-1 text; mainly for tests and for peers that must see Huffman. */
export function huffmanEncode(text: string): Uint8Array {
  const out: number[] = [];
  let bits = 0n;
  let count = 0n;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i);
    bits = (bits << BigInt(LENGTHS[symbol]!)) | BigInt(CODES[symbol]!);
    count += BigInt(LENGTHS[symbol]!);
    while (count >= 8n) {
      count -= 8n;
      out.push(Number((bits >> count) & 0xffn));
    }
    bits &= (1n << count) - 1n;
  }
  if (count > 0n) out.push(Number(((bits << (8n - count)) | ((1n << (8n - count)) - 1n)) & 0xffn));
  return Uint8Array.from(out);
}
