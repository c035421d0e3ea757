// One node of a lab, as a ztunnel in shared mode meets it: a node agent that enrols pods, and a control
// plane whose mesh the test changes while traffic runs. Removes everything on dispose.

import { join } from "node:path";
import { FakeAgent, type Payload, SNAPSHOT } from "../src/testing/fake-agent.ts";
import { ControlPlane } from "./control-plane.ts";
import { Lab, type Ztunnel } from "./lab.ts";

export type PodSide = "client" | "server";
export const POD_SIDES: readonly PodSide[] = ["client", "server"];

export class NodeLab implements Disposable {
  readonly lab: Lab;
  readonly mesh: ControlPlane;
  readonly agent: FakeAgent;
  readonly #steered: boolean;
  #started = 0;

  private constructor(lab: Lab, mesh: ControlPlane, steered: boolean) {
    this.lab = lab;
    this.mesh = mesh;
    this.#steered = steered;
    this.agent = new FakeAgent(this.#socket);
  }

  /** `steered`: pods are given slots, as for eBPF. */
  static async create({ steered = false } = {}): Promise<NodeLab> {
    const lab = new Lab();
    return new NodeLab(lab, await ControlPlane.start(lab.fd("node")), steered);
  }

  /** Starts a ztunnel of node-1, next to the one that may be there. */
  ztunnel(env: Readonly<Record<string, string>>): Ztunnel {
    this.#started++;
    return this.lab.ztunnel("node", {
      NODE_NAME: "node-1",
      INPOD_UDS: this.#socket,
      ...this.mesh.env,
      ...env,
    });
  }

  /** Awaits the latest ztunnel, and tells it of these pods and that there are no others. */
  async enrol(...pods: PodSide[]): Promise<void> {
    await this.agent.connected(this.#started);
    for (const side of pods) await this.#ask(this.#add(side), this.lab.fd(side));
    await this.#ask(SNAPSHOT);
  }

  /** The pod leaves the mesh. */
  async leave(side: PodSide): Promise<void> {
    await this.#ask({ case: "del", value: { uid: uidOf(side) } });
  }

  get #socket(): string {
    return join(this.lab.folder, "zds.sock");
  }

  #add(side: PodSide): Payload {
    const workloadInfo = { name: side, namespace: "ns", serviceAccount: side };
    const slot = this.#steered ? { steeringSlot: POD_SIDES.indexOf(side) } : {};
    return { case: "add", value: { uid: uidOf(side), workloadInfo, ...slot } };
  }

  async #ask(payload: Payload, fd?: number): Promise<void> {
    const error = await this.agent.send(payload, fd);
    if (error !== "") throw new Error(`ztunnel refused: ${error}`);
  }

  [Symbol.dispose](): void {
    this.agent.close();
    this.mesh[Symbol.dispose]();
    this.lab[Symbol.dispose]();
  }
}

const uidOf = (side: PodSide) => `uid-${side}`;
