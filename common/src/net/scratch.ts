// The two kinds of memory on the byte path, per thread: one buffer that every socket reads into, and a
// few that hold bytes on their way out. Neither is allocated per read, so bytes cost no garbage.

/** Per read and per write: larger means fewer system calls for bulk; 256 KiB is where it stops to pay. */
export const SCRATCH_BYTES = 256 * 1024;

/** Below a scratch by room for a frame header, so that what one read brought leaves in one write. */
const READ_BYTES = SCRATCH_BYTES - 64;

/** Kept for reuse; more are made when more writes wait at once, and then left to the collector. */
const SPARE_MAX = 16;

/** In front of where reads land: room for what a protocol writes before it sends them on. */
export const HEADROOM_BYTES = 16;

const memory = Buffer.allocUnsafeSlow(HEADROOM_BYTES + READ_BYTES);

/** Where reads land. Valid until the callback that was given it returns: copy what must last. */
export const readBuffer: Buffer = memory.subarray(HEADROOM_BYTES);

/** Whether these are the bytes that were read last, from their beginning. */
export function isAsRead(bytes: Buffer): boolean {
  return bytes.byteOffset === HEADROOM_BYTES && bytes.buffer === memory.buffer;
}

const spare: Buffer[] = [];

/** A buffer of SCRATCH_BYTES for bytes to be written. */
export function takeScratch(): Buffer {
  return spare.pop() ?? Buffer.allocUnsafeSlow(SCRATCH_BYTES);
}

/** Gives a scratch back. Nobody may hold it any more, the kernel's queue included. */
export function releaseScratch(scratch: Buffer): void {
  if (spare.length < SPARE_MAX) spare.push(scratch);
}
