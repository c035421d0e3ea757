// `ambit local up`, in the foreground and as a supervisor in the background: takes the lock, runs the
// mesh until it is told to stop, and leaves nothing behind.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readdirSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import type { Resource } from "@ambit/api/resources/kinds.ts";
import { systemClock } from "@ambit/common/process/clock.ts";
import { errorMessage, UserError } from "@ambit/common/process/errors.ts";
import { type MeshOptions, REPOSITORY } from "./components.ts";
import { componentLog, type Home, supervisorLog } from "./home.ts";
import { LocalMesh, prepareHome } from "./local-mesh.ts";
import { checkEnvironment } from "./environment.ts";
import { findLockHolder, takeLock } from "./lock.ts";
import { readManifests } from "./manifests.ts";
import { Narrator } from "./narrator.ts";

export interface UpOptions extends MeshOptions {
  /** Manifest files and folders, absolute or "-". */
  readonly files: readonly string[];
  readonly sample: string | undefined;
}

const ALIVE_PERIOD_MS = 60_000;

/** Runs the mesh until a signal; resolves when everything is removed. */
export async function runForeground(home: Home, options: UpOptions): Promise<void> {
  const print = (line: string) => console.log(line);
  await runMesh(
    home,
    { options, resources: loadResources(options) },
    {
      report: (line) => print(`ambit: ${line}`),
      onReady: (mesh) => {
        const nodes = Array.from({ length: options.nodes }, (_, i) => `node-${i + 1}`);
        for (const line of describeMesh(mesh)) print(line);
        for (const line of nextSteps(options.sample)) print(line);
        print("");
        const logs = nodes.map((node) => componentLog(home, "ztunnel", node));
        const narrator = new Narrator({ logs, clock: systemClock, print });
        narrator.start();
        return () => narrator.stop();
      },
    },
  );
}

/** What is to run. */
interface Order {
  readonly options: MeshOptions;
  readonly resources: readonly Resource[];
}

/**
 * The body of the background process: gets its order from its parent, which alone can read standard
 * input, tells it each step, then that the mesh is ready.
 */
export async function runSupervisor(home: Home): Promise<void> {
  const [order] = (await once(process, "message")) as [Order];
  const tell = (message: SupervisorMessage) => {
    if (process.connected) process.send?.(message);
  };
  await runMesh(home, order, {
    report: (line) => {
      console.log(`${new Date().toISOString()} ${line}`);
      tell({ type: "progress", line });
    },
    onReady: () => {
      tell({ type: "ready" });
      if (process.connected) process.disconnect?.();
      return () => undefined;
    },
    onFailure: (error) => tell({ type: "failed", message: errorMessage(error) }),
  });
}

type SupervisorMessage =
  | { readonly type: "progress"; readonly line: string }
  | { readonly type: "ready" }
  | { readonly type: "failed"; readonly message: string };

/** Starts the supervisor in the background; resolves when the mesh is ready, rejects when it cannot be. */
export async function runDetached(home: Home, options: UpOptions): Promise<void> {
  const resources = loadResources(options);
  await checkBeforeStart(home);
  prepareHome(home);
  const log = openSync(supervisorLog(home), "w");
  const main = resolve(REPOSITORY, "cli/src/main.ts");
  const child = spawn(process.execPath, [main, "local", "supervise"], {
    detached: true,
    stdio: ["ignore", log, log, "ipc"],
    cwd: "/",
  });
  closeSync(log);
  child.send({ options, resources } satisfies Order);
  await supervisorReady(child);
  child.unref();
}

function supervisorReady(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.on("message", (message: SupervisorMessage) => {
      if (message.type === "progress") console.log(`ambit: ${message.line}`);
      else if (message.type === "ready") resolve();
      else reject(new UserError(message.message));
    });
    child.on("error", reject);
    child.on("exit", (code) => reject(new UserError(`the supervisor ended with code ${code}`)));
  });
}

interface RunHooks {
  readonly report: (line: string) => void;
  /** Called when everything is ready; returns what to do before the mesh stops. */
  readonly onReady: (mesh: LocalMesh) => () => void;
  readonly onFailure?: (error: unknown) => void;
}

async function runMesh(home: Home, { options, resources }: Order, hooks: RunHooks): Promise<void> {
  const stop = stopSignal();
  let mesh: LocalMesh | undefined;
  let onStop = () => {};
  // The mesh's own timers do not hold the process; until it is told to end, this one does.
  const alive = setInterval(() => undefined, ALIVE_PERIOD_MS);
  try {
    await checkBeforeStart(home);
    const lock = await takeLock(home);
    if (lock === undefined) throw await alreadyRunning(home);
    mesh = new LocalMesh(options, {
      home,
      clock: systemClock,
      random: Math.random,
      settings: ownEnvironment(),
      podEnv: podEnvironment(),
      report: hooks.report,
    });
    await mesh.start(resources, stop);
    onStop = hooks.onReady(mesh);
    await aborted(stop);
  } catch (error) {
    if (!stop.aborted) hooks.onFailure?.(error);
    if (!stop.aborted) throw error;
  } finally {
    onStop();
    if (mesh !== undefined) {
      hooks.report("stopping, removing everything");
      await mesh.stop();
      hooks.report("stopped, nothing is left");
    }
    clearInterval(alive);
  }
}

/** Aborts at the first signal that asks to end, also when the terminal goes away; later ones are ignored. */
function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => controller.abort());
  }
  // A terminal or pipe that is gone must not keep us from cleaning up.
  process.stdout.on("error", () => undefined);
  process.stderr.on("error", () => undefined);
  return controller.signal;
}

async function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  if (!signal.aborted) await promise;
}

/** Everything that must be there before anything is made. Throws a UserError that says what is missing. */
async function checkBeforeStart(home: Home): Promise<void> {
  await checkEnvironment();
  const lock = await takeLock(home);
  if (lock === undefined) throw await alreadyRunning(home);
  lock.release();
}

async function alreadyRunning(home: Home): Promise<UserError> {
  const pid = (await findLockHolder(home))?.pid;
  const who = pid === undefined ? "" : ` (process ${pid})`;
  return new UserError(
    `a local mesh is already running in ${home.root}${who}: stop it with "ambit local down"`,
  );
}

function loadResources(options: UpOptions): Resource[] {
  const { files, sample, redirection } = options;
  const [other] = Object.keys(options.ztunnels);
  if (redirection === "ebpf" && other !== undefined) {
    throw new UserError(
      `the ztunnel of ${other} takes no connections by eBPF: leave out --redirection ebpf, or --ztunnel`,
      2,
    );
  }
  const folders = sample === undefined ? [] : [samplePath(sample)];
  return readManifests([...folders, ...files]);
}

function samplePath(sample: string): string {
  const samples = resolve(REPOSITORY, "samples");
  const names = readdirSync(samples);
  if (!names.includes(sample)) {
    throw new UserError(`there is no sample "${sample}": choose ${names.join(" or ")}`, 2);
  }
  return join(samples, sample, "manifests");
}

/** What a pod's processes inherit from the host, as they run on its files. */
const POD_VARIABLES = new Set(["HOME", "LANG", "TZ", "PATH", "NODE_COMPILE_CACHE"]);

/** This process's environment, with the Node that runs it as the first one to be found. */
function ownEnvironment(): NodeJS.ProcessEnv {
  const own = resolve(process.execPath, "..");
  return { ...process.env, PATH: [own, process.env["PATH"] ?? ""].join(delimiter) };
}

function podEnvironment(): NodeJS.ProcessEnv {
  const own = ownEnvironment();
  return Object.fromEntries(Object.entries(own).filter(([name]) => POD_VARIABLES.has(name)));
}

function describeMesh(mesh: LocalMesh): string[] {
  const lines = ["", "nodes and pods"];
  for (const node of mesh.view.list("Node")) {
    lines.push(`  ${node.metadata.name}`);
    for (const pod of mesh.view.list("Pod")) {
      if (pod.spec.nodeName !== node.metadata.name || pod.spec.hostNetwork === true) continue;
      const { namespace, name, annotations } = pod.metadata;
      const account = pod.spec.serviceAccountName ?? "default";
      const enrolled = annotations?.["ambient.istio.io/redirection"] === "enabled";
      lines.push(
        `    ${name}.${namespace}  ${pod.status?.podIP}  ${enrolled ? `in the mesh as ${namespace}/${account}` : "not in the mesh"}`,
      );
    }
  }
  return lines;
}

function nextSteps(sample: string | undefined): string[] {
  const shop = sample === "bookshop";
  return [
    "",
    "try next, in another terminal",
    shop
      ? "  ./ambit local exec visitor.bookshop -- curl -s page:8080   the shop's page, through the mesh"
      : "  ./ambit local status                                       what runs where",
    "  ./ambit ztunnel certificates                               the identities each node holds",
    shop
      ? "  ./ambit explain visitor.bookshop page.bookshop:8080        why that call is allowed"
      : "  ./ambit explain SOURCE DESTINATION:PORT                    why a call goes where it goes",
    "",
    "who talks to whom (Ctrl-C stops and removes everything)",
  ];
}
