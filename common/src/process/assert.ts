// Broken invariants end the process: a mesh that no longer knows what it does must not carry traffic.

export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/** Throws InvariantError when `condition` is false. `message` states what should have held. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(`invariant broken: ${message}`);
}

/** For exhaustive switches: the compiler proves that it is unreachable. */
export function unreachable(value: never): never {
  throw new InvariantError(`unreachable case: ${JSON.stringify(value)}`);
}
