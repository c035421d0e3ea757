// Node's own socket handles, below net.Socket. Not a documented interface: everything that knows it is
// this file and write-directly.ts and read-directly.ts, and all of it has a way by public interfaces when it is not there.

/** A libuv stream as Node wraps it: TCP, or TLS over one. Results below 0 are errno values. */
export interface StreamHandle {
  readonly fd: number;
  onread: (this: StreamHandle, chunk?: ArrayBuffer) => unknown;
  useUserBuffer(buffer: Buffer): void;
  readStart(): number;
  readStop(): number;
  writeBuffer(request: StreamRequest, bytes: Buffer): number;
  shutdown(request: StreamRequest): number;
  close(closed?: () => void): void;
}

export interface TcpHandle extends StreamHandle {
  open(fd: number): number;
  /** Closes with RST. Fails, and does nothing, while a shutdown is under way. */
  reset(closed: () => void): number;
}

/** One asynchronous operation; Node calls `oncomplete` with it as `this`. */
export interface StreamRequest {
  oncomplete: (this: StreamRequest, status: number) => void;
  /** Node keeps the handle alive through it. */
  handle?: StreamHandle;
  /** What the operation is of: ours to use. */
  owner?: unknown;
}

export interface NodeHandles {
  readonly newTcp: () => TcpHandle;
  readonly newRequest: (kind: "write" | "shutdown") => StreamRequest;
  /** Bytes of the read that `onread` is called for, or the errno value. */
  readonly readResult: () => number;
  /** The last writeBuffer did not hand over everything: its request completes later. */
  readonly writeWaits: () => boolean;
}

interface StreamBinding {
  readonly WriteWrap: new () => StreamRequest;
  readonly ShutdownWrap: new () => StreamRequest;
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kLastWriteWasAsync: number;
}

interface TcpBinding {
  readonly TCP: new (kind: number) => TcpHandle;
  readonly constants: { readonly SOCKET: number };
}

/** libuv's end of file. */
export const UV_EOF = -4095;

/** What a request completes with when its handle was closed. */
export const UV_ECANCELED = -125;

/** What is called on a handle here and in write-directly.ts and read-directly.ts. */
const METHODS = [
  "open",
  "useUserBuffer",
  "readStart",
  "readStop",
  "writeBuffer",
  "shutdown",
  "close",
];

/** undefined when this Node does not have them as we know them. */
export const nodeHandles: NodeHandles | undefined = load();

function load(): NodeHandles | undefined {
  const stream = bindingOf("stream_wrap") as StreamBinding | undefined;
  const tcp = bindingOf("tcp_wrap") as TcpBinding | undefined;
  if (stream === undefined || tcp === undefined || !isAsKnown(stream, tcp)) return undefined;
  return bind(stream, tcp);
}

function bindingOf(name: string): unknown {
  try {
    return (process as unknown as { binding(name: string): unknown }).binding(name);
  } catch {
    return undefined;
  }
}

function isAsKnown(stream: StreamBinding, tcp: TcpBinding): boolean {
  const { prototype } = tcp.TCP as unknown as { prototype: object };
  return (
    stream.streamBaseState instanceof Int32Array &&
    Number.isInteger(stream.kReadBytesOrError) &&
    Number.isInteger(stream.kLastWriteWasAsync) &&
    METHODS.every((name) => name in prototype)
  );
}

function bind(stream: StreamBinding, tcp: TcpBinding): NodeHandles {
  const { streamBaseState: state, kReadBytesOrError, kLastWriteWasAsync } = stream;
  const kinds = {
    write: stream.WriteWrap,
    shutdown: stream.ShutdownWrap,
  };
  return {
    newTcp: () => new tcp.TCP(tcp.constants.SOCKET),
    newRequest: (kind) => new kinds[kind](),
    readResult: () => state[kReadBytesOrError]!,
    writeWaits: () => state[kLastWriteWasAsync] !== 0,
  };
}
