// The agent's side of ZDS: listens for ztunnels, gives each a snapshot of the enrolled pods, then live
// changes: additions to the newest ztunnel, removals to all. Owns the sessions; the pods are asked for.

import { chmodSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Clock } from "@ambit/common/process/clock.ts";
import { errorMessage } from "@ambit/common/process/errors.ts";
import { closeFd } from "@ambit/common/sys/libc.ts";
import { listenSeqpacket, type SeqpacketListener } from "@ambit/common/sys/seqpacket.ts";
import type { Logger } from "@ambit/common/telemetry/log.ts";
import { AgentError, failureCode } from "../errors.ts";
import type { ZtunnelFacts } from "../rules/redirection-choice.ts";
import { AcceptPace } from "./accept-pace.ts";
import {
  encodeAdd,
  encodeDelete,
  encodeKeep,
  encodeSnapshotSent,
  type ZdsPod,
} from "./messages.ts";
import { type Request, ZdsSession } from "./session.ts";

/** Two during an upgrade, and room for ones that have not noticed their end. */
const SESSIONS_MAX = 8;

/** KeepWorkload is allowed in a snapshot only: later it ends the ztunnel (ztunnel §2.3). */
type Phase = "snapshot" | "live";

/** The enrolled pods as of now. */
export interface PodDirectory {
  pods(): Iterable<ZdsPod>;
  pod(uid: string): ZdsPod | undefined;
}

export interface ZdsServerOptions {
  readonly path: string;
  readonly directory: PodDirectory;
  readonly clock: Clock;
  readonly log: Logger;
  /** Another ztunnel serves the node from now on: it gets what is captured, as it can take it. */
  onNewest(ztunnel: ZtunnelFacts): void;
  /** A ztunnel has the whole snapshot: what waited for one can go on. */
  onSynced(): void;
  /** A ztunnel refused a pod that it was given without being asked for. */
  onRejected(uid: string, error: unknown): void;
}

export class ZdsServer {
  readonly #options: ZdsServerOptions;
  readonly #listener: SeqpacketListener;
  readonly #pace: AcceptPace;
  /** Every live connection; those that said hello are also in #ready, oldest first. */
  readonly #sessions = new Set<ZdsSession>();
  readonly #ready: ZdsSession[] = [];

  /** Listens, for root only. Throws SystemError when the path cannot be bound. */
  constructor(options: ZdsServerOptions) {
    this.#options = options;
    this.#pace = new AcceptPace(options.clock, (fd) => this.#onConnection(fd));
    mkdirSync(dirname(options.path), { recursive: true });
    this.#listener = listenSeqpacket(options.path, (fd) => this.#onAccept(fd));
    chmodSync(options.path, 0o600);
  }

  /** How many ztunnels are connected and have said hello. */
  get connected(): number {
    return this.#ready.length;
  }

  /** Whether the newest ztunnel answers capture probes; false while there is none. */
  get answersProbes(): boolean {
    return this.#ready.at(-1)?.answersProbes ?? false;
  }

  /** Resolves when the newest ztunnel serves the pod. Rejects with AgentError; then try again later. */
  async add(uid: string): Promise<void> {
    const session = this.#ready.at(-1);
    if (session === undefined) {
      throw new AgentError(
        "ztunnel-absent",
        "no ztunnel is connected: is it running on this node?",
      );
    }
    await this.#offer(session, uid, "live");
  }

  /** Tells every ztunnel that the pod is gone. Never rejects: one that is away learns by snapshot. */
  async remove(uid: string): Promise<void> {
    await Promise.all(
      this.#ready.map(async (session) => {
        session.pods.delete(uid);
        try {
          await session.request(() => ({ bytes: encodeDelete(uid) }));
        } catch (error) {
          this.#options.log.warn("ztunnel did not confirm a removal", {
            uid,
            error: errorMessage(error),
          });
        }
      }),
    );
  }

  close(): void {
    this.#listener.close();
    this.#pace.close();
    for (const session of this.#sessions) session.close("the agent stops");
  }

  #onAccept(fd: number): void {
    if (this.#pace.offer(fd)) return;
    this.#options.log.warn("ztunnels connect faster than they are let in, refusing one");
  }

  #onConnection(fd: number): void {
    const { clock, log } = this.#options;
    if (this.#sessions.size >= SESSIONS_MAX) {
      log.warn("too many ztunnel connections, refusing one", { limit: SESSIONS_MAX });
      return closeFd(fd);
    }
    const handlers = {
      onHello: (session: ZdsSession) => this.#onHello(session),
      onEnd: (session: ZdsSession, reason: string) => this.#onEnd(session, reason),
    };
    this.#sessions.add(new ZdsSession(fd, handlers, clock));
  }

  #onHello(session: ZdsSession): void {
    const { directory, log } = this.#options;
    this.#ready.push(session);
    this.#options.onNewest(session.facts);
    const pods = [...directory.pods()];
    log.info("ztunnel connected", { pods: pods.length, connections: this.#ready.length });
    for (const { uid } of pods) this.#offerOrReport(session, uid, "snapshot");
    session
      .request(() => ({ bytes: encodeSnapshotSent() }))
      .then(
        () => this.#options.onSynced(),
        (error: unknown) => log.warn("snapshot not taken", { error: errorMessage(error) }),
      );
  }

  #onEnd(session: ZdsSession, reason: string): void {
    this.#sessions.delete(session);
    const index = this.#ready.indexOf(session);
    if (index < 0) return;
    const wasNewest = index === this.#ready.length - 1;
    this.#ready.splice(index, 1);
    this.#options.log.warn("ztunnel left", { reason, connections: this.#ready.length });
    const next = this.#ready.at(-1);
    if (wasNewest && next !== undefined) this.#catchUp(next);
  }

  /**
   * The newest ztunnel went (a failed upgrade): the one before it may have missed pods, and what is
   * steered is steered to nobody until it takes that again.
   */
  #catchUp(session: ZdsSession): void {
    this.#options.onNewest(session.facts);
    for (const { uid, netnsFd, slot } of this.#options.directory.pods()) {
      if (netnsFd === undefined || (slot === undefined && session.pods.has(uid))) continue;
      this.#offerOrReport(session, uid, "live");
    }
  }

  /** A ztunnel that merely left is no refusal: the next one gets its own snapshot. */
  #offerOrReport(session: ZdsSession, uid: string, phase: Phase): void {
    this.#offer(session, uid, phase).catch((error: unknown) => {
      if (failureCode(error) === "ztunnel-rejected") this.#options.onRejected(uid, error);
    });
  }

  async #offer(session: ZdsSession, uid: string, phase: Phase): Promise<void> {
    await session.request(() => this.#addRequest(uid, phase));
    if (this.#options.directory.pod(uid) !== undefined) session.pods.add(uid);
  }

  #addRequest(uid: string, phase: Phase): Request | undefined {
    const pod = this.#options.directory.pod(uid);
    if (pod?.netnsFd !== undefined) return { bytes: encodeAdd(pod), netnsFd: pod.netnsFd };
    return pod === undefined || phase === "live" ? undefined : { bytes: encodeKeep(uid) };
  }
}
