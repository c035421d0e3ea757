import { describe, expect, it } from "vitest";
import { startHttpServer } from "./http-server.ts";
import { Readiness } from "./readiness.ts";

describe("readiness", () => {
  it("is reached when every task is done, and lost when one is pending again", async () => {
    const readiness = new Readiness();
    readiness.expect("xds", "pods");
    const reached = readiness.whenReady();
    readiness.done("xds");
    expect(readiness.pending).toEqual(["pods"]);
    readiness.done("pods");
    await reached;
    readiness.expect("pods");
    readiness.expect("pods");
    expect(readiness.ready).toBe(false);
    readiness.done("pods");
    expect(readiness.ready).toBe(true);
  });

  it("answers probes with what is pending", async () => {
    const readiness = new Readiness();
    readiness.expect("state manager", "proxy");
    const routes = readiness.routes("/healthz/ready");
    const server = await startHttpServer({ host: "127.0.0.1", port: 0, routes });
    const url = `http://127.0.0.1:${server.port}/healthz/ready`;
    const probe = async (method = "GET") => {
      const response = await fetch(url, { method });
      return [response.status, await response.text()];
    };
    expect(await probe()).toEqual([500, "not ready, pending: state manager, proxy\n"]);
    readiness.done("state manager");
    readiness.done("proxy");
    expect(await probe()).toEqual([200, "ready\n"]);
    expect((await probe("POST"))[0]).toBe(405);
    await server.close();
  });
});
