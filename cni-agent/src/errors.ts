// Everything the agent can fail at, as one closed set of codes. Codes appear in logs and metrics.

export type AgentErrorCode =
  | "netns-not-found"
  | "capture-unproven"
  | "command-missing"
  | "command-failed"
  | "command-timed-out"
  | "routes-failed"
  | "bpf-failed"
  | "ztunnel-absent"
  | "ztunnel-rejected"
  | "ztunnel-timed-out"
  | "ztunnel-left";

/** A step that failed and will be tried again; the message names the likely remedy. */
export class AgentError extends Error {
  override readonly name = "AgentError";
  readonly code: AgentErrorCode;

  constructor(code: AgentErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** The metric label of anything thrown. */
export function failureCode(error: unknown): AgentErrorCode | "internal" {
  return error instanceof AgentError ? error.code : "internal";
}
