// From protobuf-es service descriptors to grpc-js: server registration with plain async handlers, and
// typed calls over a grpc-js client. Owns nothing; channels are in channel.ts.

import {
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodUnary,
  type DescService,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type Client,
  type ClientDuplexStream,
  Metadata,
  type MethodDefinition,
  type sendUnaryData,
  type Server,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  status,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import { errorMessage } from "../process/errors.ts";

/** What a unary handler learns about its caller besides the message. */
export interface CallContext {
  readonly metadata: Metadata;
  /** The peer's `ip:port`, as grpc-js prints it. */
  readonly peer: string;
}

/** Thrown by handlers: the gRPC status and message that the caller gets. */
export class RpcError extends Error {
  override readonly name = "RpcError";
  readonly code: status;

  constructor(code: status, message: string) {
    super(message);
    this.code = code;
  }
}

export type UnaryHandler<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  context: CallContext,
) => Promise<MessageShape<O>>;

export type StreamHandler<I extends DescMessage, O extends DescMessage> = (
  stream: ServerDuplexStream<MessageShape<I>, MessageShape<O>>,
) => void;

/** One handler per method of the service; other kinds of streaming are not used by the mesh. */
export type ServiceHandlers<S extends DescService> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? UnaryHandler<I, O>
    : S["method"][K] extends DescMethodBiDiStreaming<infer I, infer O>
      ? StreamHandler<I, O>
      : never;
};

type AnyDefinition = MethodDefinition<MessageShape<DescMessage>, MessageShape<DescMessage>>;

/** Registers a service on a grpc-js server. Handlers' RpcErrors reach the caller; others as INTERNAL. */
export function addService<S extends DescService>(
  server: Server,
  service: S,
  handlers: ServiceHandlers<S>,
): void {
  const implementation: Record<string, UntypedHandleCall> = {};
  for (const method of service.methods) {
    const name = method.localName;
    const handler = (handlers as Record<string, unknown>)[name];
    implementation[name] =
      method.methodKind === "unary"
        ? unaryAdapter(handler as UnaryHandler<DescMessage, DescMessage>)
        : (handler as UntypedHandleCall);
  }
  server.addService(grpcServiceDefinition(service), implementation);
}

/** grpc-js's definition of a service; methods are keyed as generated (camel case). */
export function grpcServiceDefinition(service: DescService): ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method): [string, AnyDefinition] => [
      method.localName,
      methodDefinition(method),
    ]),
  );
}

/** Calls a unary method; rejects with grpc-js's ServiceError (`code`, `details`). */
export function callUnary<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: DescMethodUnary<I, O>,
  request: MessageShape<I>,
  options: { readonly metadata?: Readonly<Record<string, string>>; readonly deadlineMs: number },
): Promise<MessageShape<O>> {
  const { path, requestSerialize, responseDeserialize } = methodDefinition<I, O>(method);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      toMetadata(options.metadata ?? {}),
      { deadline: new Date(options.deadlineMs) },
      (error, response) => {
        if (error !== null) reject(error);
        else if (response === undefined) reject(new Error(`${path} ended without an answer`));
        else resolve(response);
      },
    );
  });
}

/** Opens a bidirectional stream. */
export function callStream<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: DescMethodBiDiStreaming<I, O>,
  metadata: Readonly<Record<string, string>>,
): ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
  const { path, requestSerialize, responseDeserialize } = methodDefinition<I, O>(method);
  return client.makeBidiStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    toMetadata(metadata),
  );
}

export function toMetadata(entries: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(entries)) metadata.set(key, value);
  return metadata;
}

function methodDefinition<I extends DescMessage, O extends DescMessage>(
  method: DescMethod & { readonly input: I; readonly output: O },
): MethodDefinition<MessageShape<I>, MessageShape<O>> {
  const { input, output } = method;
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "bidi_streaming",
    requestSerialize: (message) => asBuffer(toBinary(input, message)),
    requestDeserialize: (bytes) => fromBinary(input, bytes),
    responseSerialize: (message) => asBuffer(toBinary(output, message)),
    responseDeserialize: (bytes) => fromBinary(output, bytes),
  };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function unaryAdapter(handler: UnaryHandler<DescMessage, DescMessage>): UntypedHandleCall {
  type Request = MessageShape<DescMessage>;
  return (call: ServerUnaryCall<Request, Request>, callback: sendUnaryData<Request>) => {
    const context: CallContext = { metadata: call.metadata, peer: call.getPeer() };
    void answer(handler, call.request, context, callback);
  };
}

async function answer<I extends DescMessage, O extends DescMessage>(
  handler: UnaryHandler<I, O>,
  request: MessageShape<I>,
  context: CallContext,
  callback: sendUnaryData<MessageShape<O>>,
): Promise<void> {
  let response: MessageShape<O>;
  try {
    response = await handler(request, context);
  } catch (error) {
    callback(toStatus(error));
    return;
  }
  callback(null, response);
}

function toStatus(error: unknown): { code: status; details: string } {
  const code = error instanceof RpcError ? error.code : status.INTERNAL;
  return { code, details: errorMessage(error) };
}
