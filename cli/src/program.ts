// The tree of commands. What a command does is loaded when it runs, so that small commands start fast.

import { Command, Option } from "commander";
import { homeOf } from "./local/home.ts";
import { NODES_MAX } from "./local/addresses.ts";
import { parseCount, parseNodePath } from "./arguments.ts";

export function buildProgram(): Command {
  const program = new Command("ambit")
    .description("Ambit, an ambient service mesh: run a mesh on this machine, look into it")
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .exitOverride();
  addLocal(program);
  addZtunnel(program);
  addInspection(program);
  return program;
}

const home = () => homeOf(process.env);

function addLocal(program: Command): void {
  const local = program.command("local").description("a mesh on this machine, without Kubernetes");
  addLifecycle(local);
  addObjects(local);
  local
    .command("exec")
    .description("run a command inside a pod; its output and exit code are the command's")
    .usage("POD[.NAMESPACE] -- COMMAND...")
    .argument("<pod>", "a pod, or the Deployment or app it belongs to")
    .argument("<command...>")
    .passThroughOptions()
    .action(async (pod: string, command: string[]) => {
      const { execInPod } = await import("./commands/exec.ts");
      process.exitCode = await execInPod(home(), pod, command);
    });
  local
    .command("status")
    .description("nodes, programs and pods, with their namespaces, links and addresses")
    .addOption(outputOption())
    .action(async ({ output }: OutputOptions) => {
      const { showStatus } = await import("./commands/status.ts");
      showStatus(home(), output);
    });
  local
    .command("logs")
    .description("the log of istiod-lite, cni-agent, ztunnel, or of a pod")
    .argument("<component>", "istiod-lite, cni-agent, ztunnel, supervisor, or POD[.NAMESPACE]")
    .option("--node <name>", "the node, for programs that run on each")
    .option("-f, --follow", "go on as the log grows")
    .option("-c, --container <name>", "the container, for pods that have several")
    .action(async (component: string, options: LogOptions) => {
      const { showLogs } = await import("./commands/logs.ts");
      await showLogs(home(), component, options);
    });
}

interface OutputOptions {
  readonly output: "table" | "json";
}

interface LogOptions {
  readonly node?: string;
  readonly follow?: boolean;
  readonly container?: string;
}

function outputOption(): Option {
  return new Option("-o, --output <format>", "table or json")
    .choices(["table", "json"])
    .default("table");
}

function addLifecycle(local: Command): void {
  local
    .command("up")
    .description("start the mesh and stay, until Ctrl-C removes everything again")
    .option("-f, --file <path>", "manifests: a file, a folder or - (again for more)", collect, [])
    .option("--nodes <count>", "how many nodes", parseCount(1, NODES_MAX), 2)
    .addOption(
      new Option("--redirection <kind>", "how traffic reaches ztunnel")
        .choices(["auto", "ebpf", "nftables", "iptables"])
        .default("auto"),
    )
    .addOption(
      new Option("--same-node <path>", "how pods of one node reach each other")
        .choices(["local", "hbone", "direct"])
        .default("local"),
    )
    .option(
      "--ztunnel <node=path>",
      "another ztunnel on a node, such as Istio's",
      parseNodePath,
      {},
    )
    .option("--sample <name>", "also apply a sample, such as bookshop")
    .option("--detach", "leave the mesh running in the background, return when it is ready")
    .action(async ({ file, detach, ztunnel: ztunnels, ...options }: UpFlags) => {
      const { runDetached, runForeground } = await import("./local/up.ts");
      const wanted = { ...options, ztunnels, files: file, sample: options.sample };
      await (detach ? runDetached(home(), wanted) : runForeground(home(), wanted));
    });
  local.command("supervise", { hidden: true }).action(async () => {
    const { runSupervisor } = await import("./local/up.ts");
    await runSupervisor(home());
  });
  local
    .command("restart")
    .description("replace a program of the mesh; no connection notices that ztunnel was")
    .argument("<component>", "ztunnel, cni-agent or istiod-lite")
    .option("--node <name>", "only this node's")
    .action(async (component: string, { node }: { node?: string }) => {
      const { restart } = await import("./commands/restart.ts");
      await restart(home(), component, node);
    });
  local
    .command("down")
    .description("stop the mesh and remove everything it made, also what a killed run left")
    .action(async () => {
      const { bringDown } = await import("./commands/down.ts");
      await bringDown(home());
    });
}

interface UpFlags {
  readonly file: string[];
  readonly nodes: number;
  readonly redirection: "auto" | "ebpf" | "nftables" | "iptables";
  readonly sameNode: "local" | "hbone" | "direct";
  readonly ztunnel: Readonly<Record<string, string>>;
  readonly sample?: string;
  readonly detach?: boolean;
}

function collect(path: string, paths: string[]): string[] {
  return [...paths, path];
}

function addObjects(local: Command): void {
  local
    .command("apply")
    .description("create or change objects")
    .requiredOption("-f, --file <path>", "a file, a folder or - (again for more)", collect, [])
    .option("--wait", "return when the pods are ready")
    .action(async ({ file, wait }: { file: string[]; wait?: boolean }) => {
      const { apply } = await import("./commands/objects.ts");
      await apply(home(), file, wait === true);
    });
  local
    .command("delete")
    .description("delete objects, by manifest or by name")
    .argument("[kind]")
    .argument("[names...]")
    .option("-f, --file <path>", "a file, a folder or - (again for more)", collect, [])
    .option("-n, --namespace <name>", "the namespace of the objects")
    .action(async (kind: string | undefined, names: string[], options: DeleteOptions) => {
      const { remove } = await import("./commands/objects.ts");
      await remove(home(), kind, names, options);
    });
  local
    .command("get")
    .description("show objects")
    .argument("<kind>", "pods, services, namespaces, authorizationpolicies, …")
    .argument("[name]")
    .option("-n, --namespace <name>", "only this namespace")
    .addOption(
      new Option("-o, --output <format>", "table, yaml or json")
        .choices(["table", "yaml", "json"])
        .default("table"),
    )
    .action(async (kind: string, name: string | undefined, options: GetOptions) => {
      const { get } = await import("./commands/objects.ts");
      get(home(), kind, name, options);
    });
  local
    .command("label")
    .description("set (KEY=VALUE) or remove (KEY-) labels")
    .argument("<kind>")
    .argument("<name>")
    .argument("<labels...>", "KEY=VALUE or KEY-")
    .option("-n, --namespace <name>", "the namespace of the object")
    .action(async (kind: string, name: string, labels: string[], { namespace }: DeleteOptions) => {
      const { label } = await import("./commands/objects.ts");
      await label(home(), { kind, name, namespace }, labels);
    });
}

interface DeleteOptions {
  readonly file: string[];
  readonly namespace?: string;
}

interface GetOptions {
  readonly namespace?: string;
  readonly output: "table" | "yaml" | "json";
}

const VIEWS = {
  workloads: "the workloads a node's ztunnel knows",
  services: "the services it knows, with their endpoints",
  policies: "the authorization policies it knows",
  certificates: "the certificates it holds",
  connections: "the connections that are open now",
  pods: "what each pod costs it: connections, bytes, processor time",
} as const;

interface ViewOptions extends OutputOptions {
  readonly node?: string;
}

function addZtunnel(program: Command): void {
  const ztunnel = program.command("ztunnel").description("what ztunnel knows and does");
  for (const [name, description] of Object.entries(VIEWS)) {
    ztunnel
      .command(name)
      .description(description)
      .option("--node <name>", "the node whose ztunnel to ask")
      .addOption(outputOption())
      .action(async ({ node, output }: ViewOptions) => {
        const { showZtunnel } = await import("./commands/ztunnel.ts");
        await showZtunnel(home(), name as keyof typeof VIEWS, { node, output });
      });
  }
  ztunnel
    .command("log-level")
    .description("show the log level, or change it: debug, or access=off,dns=debug")
    .argument("[level]")
    .option("--node <name>", "only this node's ztunnel")
    .option("--reset", "back to the level it started with")
    .addOption(outputOption())
    .action(async (level: string | undefined, options: ViewOptions & { reset?: boolean }) => {
      const { logLevel } = await import("./commands/ztunnel.ts");
      await logLevel(home(), level, { node: undefined, reset: undefined, ...options });
    });
}

function addInspection(program: Command): void {
  program
    .command("explain")
    .description("why a connection goes where it goes, and who allows or refuses it")
    .argument("<source>", "POD[.NAMESPACE]")
    .argument("<destination>", "a pod, a service, a host name or an address, with :PORT")
    .addOption(outputOption())
    .action(async (source: string, destination: string, { output }: OutputOptions) => {
      const { explain } = await import("./commands/explain.ts");
      await explain(home(), source, destination, output);
    });
  program
    .command("proxy-status")
    .alias("ps")
    .description(
      "which proxies are connected to istiod-lite, and whether they have its latest word",
    )
    .addOption(outputOption())
    .action(async ({ output }: OutputOptions) => {
      const { proxyStatus } = await import("./commands/proxy-status.ts");
      await proxyStatus(home(), output);
    });
  program
    .command("version")
    .description("the version of Ambit, and of the Node that runs it")
    .addOption(outputOption())
    .action(async ({ output }: OutputOptions) => {
      const { showVersion } = await import("./commands/version.ts");
      showVersion(output);
    });
}
