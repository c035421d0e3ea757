import { beforeEach, describe, expect, it } from "vitest";
import { Action, Scope } from "@ambit/api/gen/istio/authorization_pb.ts";
import { bytes, serves, TestMesh } from "../state/testing-mesh.ts";
import { directFlow, DirectTestLab, ip, tcpSocket } from "../testing/direct-lab.ts";
import { testPod } from "../testing/test-context.ts";
import { DirectPaths } from "./direct-paths.ts";

const WEB = { ip: ip("10.96.0.1"), port: 80 };
const CLIENT = ip("10.0.0.1");
const ONE = { ip: ip("10.0.0.2"), port: 8080 };
const TWO = { ip: ip("10.0.0.3"), port: 8080 };
const DENY = { scope: Scope.NAMESPACE, action: Action.DENY };
const deny = (port: number) => ({
  ...DENY,
  rules: [{ clauses: [{ matches: [{ destinationPorts: [port] }] }] }],
});

let mesh: TestMesh;
let lab: DirectTestLab;
beforeEach(() => {
  mesh = new TestMesh()
    .service("web", ["10.96.0.1"])
    .workload("client", [CLIENT])
    .workload("other", ["10.0.0.9"])
    .workload("one", [ONE.ip], { services: serves("web") });
  lab = new DirectTestLab(mesh, ["client", "other", "one"]);
});

const client = (port: number) => ({ ip: CLIENT, port });

describe("what was offered", () => {
  it("is granted to that source, for that address", () => {
    lab.offer("client", WEB);
    expect(lab.destinations("client", WEB)).toEqual(["10.0.0.2:8080"]);
    expect(lab.destinations("other", WEB)).toEqual([]);
    expect(lab.destinations("client", ONE)).toEqual([]);
  });

  it("is not granted when the kernel has no room, and that is told", () => {
    lab.kernel.room = 0;
    lab.offer("client", WEB);
    expect(lab.context.direct.grantCount).toBe(0);
    expect(lab.context.lines().at(-1)).toMatchObject({ error: "E2BIG" });
  });

  it("is not granted when the destination's slot has become another pod's", () => {
    lab.kernel.slots.set(lab.cookie("one"), 9);
    lab.offer("client", WEB);
    expect(lab.kernel.verdicts.size).toBe(0);
  });

  it("is void when the slot changes hands between the look and the grant", () => {
    const { kernel } = lab;
    const slotOf = kernel.slotOf.bind(kernel);
    kernel.slotOf = (cookie) => {
      const slot = slotOf(cookie);
      if (slot !== undefined) kernel.revoke(slot);
      return slot;
    };
    lab.offer("client", WEB);
    expect(lab.destinations("client", WEB)).toEqual([]);
  });

  it("is not granted by a process that is on its way out, which takes back what it granted", () => {
    lab.offer("client", WEB);
    lab.context.direct.stop();
    expect(lab.destinations("client", WEB)).toEqual([]);
    lab.offer("client", WEB);
    expect(lab.destinations("client", WEB)).toEqual([]);
  });
});

describe("a pod that the kernel has no more room for", () => {
  it("is spared for a while, and is called directly again afterwards", async () => {
    lab.offer("client", WEB);
    lab.kernel.revoke(2);
    lab.offer("client", WEB);
    await lab.context.clock.advance(9_999);
    lab.offer("client", WEB);
    expect(lab.destinations("client", WEB)).toEqual([]);
    await lab.context.clock.advance(1);
    lab.offer("client", WEB);
    expect(lab.destinations("client", WEB)).toEqual(["10.0.0.2:8080"]);
  });
});

describe("a pod whose servers the programs do not see", () => {
  it("is not called directly any more, and that is told once", () => {
    lab.offer("client", WEB);
    lab.context.direct.distrust(lab.context, lab.pod("one"));
    lab.context.direct.distrust(lab.context, lab.pod("one"));
    expect(lab.destinations("client", WEB)).toEqual([]);
    lab.offer("client", WEB);
    expect(lab.destinations("client", WEB)).toEqual([]);
    expect(lab.context.lines().filter(({ pod }) => pod === "one")).toHaveLength(1);
  });
});

describe("a change of the mesh", () => {
  beforeEach(() => {
    lab.offer("client", WEB);
    lab.offer("other", ONE);
  });

  it("that changes nothing here leaves all as it is", () => {
    mesh.workload("stranger", ["10.0.0.77"]);
    lab.review();
    expect(lab.destinations("client", WEB)).toEqual(["10.0.0.2:8080"]);
    expect(lab.kernel.generations.size).toBe(0);
  });

  it("that forbids takes back and ends, and keeps what is still allowed", () => {
    const [doomed, kept] = [tcpSocket(client(5000), ONE), tcpSocket(client(5001), TWO)];
    lab.kernel.sockets = [doomed, kept];
    mesh.policy("deny", {
      ...DENY,
      rules: [
        { clauses: [{ matches: [{ sourceIps: [{ address: bytes(CLIENT), length: 32 }] }] }] },
      ],
    });
    lab.review();
    expect(lab.destinations("client", WEB)).toEqual([]);
    expect(lab.destinations("other", ONE)).toEqual(["10.0.0.2:8080"]);
    expect(lab.kernel.sockets).toEqual([kept]);
    const flow = directFlow(lab, { source: client(5000), destination: ONE, slot: 2 });
    const { direct } = lab.context;
    expect(direct.objectionTo(lab.context, flow)).toMatchObject({ code: "POLICY_CHANGED" });
    const other = { source: { ip: ip("10.0.0.9"), port: 1 }, netns: lab.cookie("other") };
    expect(direct.objectionTo(lab.context, { ...flow, ...other })).toBeUndefined();
  });

  it("ends no connection that ztunnel relays", () => {
    const [app, ours] = [tcpSocket(client(5000), ONE), tcpSocket(ONE, client(5000))];
    lab.kernel.sockets = [app, ours];
    mesh.policy("deny", deny(8080));
    lab.review();
    expect(lab.kernel.sockets).toEqual([app, ours]);
  });

  it("ends connections whose verdict had already gone", () => {
    mesh.service("web", ["10.96.0.1"], { ports: [{ servicePort: 80, targetPort: 9000 }] });
    mesh.workload("one", [ONE.ip], { services: serves("web", 9000) });
    lab.review();
    expect(lab.destinations("client", WEB)).toEqual([]);
    lab.kernel.sockets = [tcpSocket(client(5000), ONE)];
    mesh.policy("deny", deny(8080));
    lab.review();
    expect(lab.kernel.sockets).toEqual([]);
  });

  it("that brings a waypoint takes back and ends nothing; a SYN that is held back counts no more", () => {
    const generation = lab.kernel.generation(2);
    lab.kernel.sockets = [tcpSocket(client(5000), ONE)];
    mesh.service("web", ["10.96.0.1"], {
      waypoint: {
        destination: { case: "address", value: { address: bytes("10.96.0.9") } },
        hboneMtlsPort: 15_008,
      },
    });
    lab.review();
    expect(lab.destinations("client", WEB)).toEqual([]);
    expect(lab.destinations("other", ONE)).toEqual([]);
    expect(lab.kernel.generation(2)).toBeGreaterThan(generation);
    expect(lab.kernel.sockets).toHaveLength(1);
  });

  it("that adds an endpoint takes the verdict back until the next connection", () => {
    mesh.workload("two", [TWO.ip], { services: serves("web"), node: "node-2" });
    lab.review();
    expect(lab.destinations("client", WEB)).toEqual([]);
  });

  it("that removes a workload ends what it had", () => {
    lab.kernel.sockets = [tcpSocket(client(5000), ONE)];
    mesh.remove("c//Pod/ns/client");
    lab.review();
    expect(lab.kernel.sockets).toEqual([]);
    const flow = directFlow(lab, { source: client(5000), destination: ONE, slot: 2 });
    const why = lab.context.direct.objectionTo(lab.context, flow);
    expect(why).toMatchObject({ code: "WORKLOAD_REMOVED" });
  });

  it("or a certificate that is gone takes back and ends nothing", () => {
    lab.kernel.sockets = [tcpSocket(client(5000), ONE)];
    lab.certify("client", false);
    lab.review();
    expect(lab.destinations("client", WEB)).toEqual([]);
    expect(lab.destinations("other", ONE)).toEqual(["10.0.0.2:8080"]);
    expect(lab.kernel.sockets).toHaveLength(1);
  });
});

describe("a pod that leaves", () => {
  it.each(["client", "one"])("%s: its verdicts and connections go with it", (name) => {
    lab.offer("client", WEB);
    lab.offer("other", ONE);
    const [its, others] = [
      tcpSocket(client(5000), ONE),
      tcpSocket({ ip: ip("10.0.0.9"), port: 1 }, ONE),
    ];
    lab.kernel.sockets = [its, others];
    lab.context.direct.removePod(lab.context, `uid-${name}`);
    expect(lab.destinations("client", WEB)).toEqual([]);
    expect(lab.kernel.sockets).toEqual(name === "one" ? [] : [others]);
    expect(lab.destinations("other", ONE)).toEqual(name === "one" ? [] : ["10.0.0.2:8080"]);
  });

  it("is granted nothing more", () => {
    lab.context.direct.removePod(lab.context, "uid-client");
    lab.offer("client", WEB);
    expect(lab.kernel.verdicts.size).toBe(0);
  });
});

it("connections that an earlier process let through are ended when they are forbidden", () => {
  lab.kernel.live = [directFlow(lab, { source: client(5000), destination: ONE, slot: 2 })];
  lab.kernel.sockets = [tcpSocket(client(5000), ONE)];
  mesh.policy("deny", deny(8080));
  lab.review();
  expect(lab.kernel.sockets).toHaveLength(1);
  lab.context.direct.adopt();
  lab.review();
  expect(lab.kernel.sockets).toEqual([]);
});

it("a kernel that cannot is asked once, and the reason told", () => {
  let asked = 0;
  const open = () => {
    asked++;
    throw new Error("no such thing");
  };
  const direct = new DirectPaths({ open, cookieOf: () => 1n });
  const { context } = lab;
  for (const name of ["client", "one"]) {
    const pod = testPod(context, { name, namespace: "ns", serviceAccount: name });
    direct.setPod(context, pod, { pins: "/pins", slot: 1 });
  }
  expect(asked).toBe(1);
  expect(context.lines().at(-1)).toMatchObject({ level: "warn", error: "no such thing" });
  const decision = direct.decide(context, mesh.get("client"), WEB);
  expect(decision).toEqual({ direct: false, why: "no such thing" });
});
