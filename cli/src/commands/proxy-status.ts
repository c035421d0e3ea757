// `ambit proxy-status`: which proxies istiod-lite serves, and how far each has followed it.

import { UserError } from "@ambit/common/process/errors.ts";
import { ISTIOD } from "../local/addresses.ts";
import { netnsPath, type Home } from "../local/home.ts";
import { requireRunning } from "../local/run-file.ts";
import { httpInNetns } from "../netns-http.ts";
import { age } from "../output/age.ts";
import { type OutputFormat, printRows } from "../output/table.ts";

interface TypeSync {
  readonly synced: string;
  readonly resources?: number;
  readonly nackReason?: string;
}

interface ProxySync {
  readonly proxy: string;
  readonly node?: string;
  readonly connectedAtMs?: number;
  readonly types: Readonly<Record<string, TypeSync>>;
}

const HTTP_PORT = 8080;

export async function proxyStatus(home: Home, format: OutputFormat): Promise<void> {
  const run = requireRunning(home);
  const target = { netns: netnsPath(run.fabric.netns), ip: ISTIOD.v4, port: HTTP_PORT };
  const { status, body } = await httpInNetns(target, "/debug/syncz").catch((error: unknown) => {
    throw new UserError(
      `istiod-lite does not answer: ${String(error)}; see "ambit local logs istiod-lite"`,
    );
  });
  if (status !== 200) throw new UserError(`istiod-lite answered ${status}: ${body.trim()}`);
  const proxies = JSON.parse(body) as ProxySync[];
  const nowMs = Date.now();
  const columns = [
    { title: "NAME", text: ({ proxy }: ProxySync) => proxy },
    { title: "NODE", text: ({ node }: ProxySync) => node },
    {
      title: "CONNECTED",
      text: ({ connectedAtMs }: ProxySync) =>
        age(connectedAtMs === undefined ? undefined : new Date(connectedAtMs).toISOString(), nowMs),
    },
    ...typeNames(proxies).map((type) => ({
      title: shortType(type).toUpperCase(),
      text: ({ types }: ProxySync) => describeSync(types[type]),
    })),
  ];
  printRows(columns, proxies, { format, empty: "no proxy is connected to istiod-lite" });
}

function typeNames(proxies: readonly ProxySync[]): string[] {
  return [...new Set(proxies.flatMap(({ types }) => Object.keys(types)))].sort();
}

/** "type.googleapis.com/istio.workload.Address" is shown as Address. */
function shortType(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf(".") + 1);
}

function describeSync(sync: TypeSync | undefined): string {
  if (sync === undefined) return "NOT SENT";
  const { synced, resources, nackReason } = sync;
  const count = resources === undefined ? "" : ` (${resources})`;
  return nackReason === undefined ? `${synced}${count}` : `${synced}: ${nackReason}`;
}
