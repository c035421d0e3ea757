import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { PushQueue } from "./push-queue.ts";

function clients(count: number, pushed: number[]) {
  return Array.from({ length: count }, (_, i) => ({ push: () => void pushed.push(i) }));
}

describe("pushes", () => {
  it("go out at once up to the number of one turn, and the others in the next", async () => {
    const pushed: number[] = [];
    const queue = new PushQueue(2);
    queue.add(clients(5, pushed));
    expect([pushed, queue.size]).toEqual([[0, 1], 3]);
    await turn();
    expect(pushed).toEqual([0, 1, 2, 3]);
    await turn();
    expect([pushed, queue.size]).toEqual([[0, 1, 2, 3, 4], 0]);
  });

  it("keep their place when more is to be pushed, and are one then", async () => {
    const pushed: number[] = [];
    const queue = new PushQueue(1);
    const all = clients(3, pushed);
    queue.add(all);
    queue.add([all[2]!, all[0]!]);
    for (let i = 0; i < 4; i++) await turn();
    expect(pushed).toEqual([0, 1, 2, 0]);
  });

  it("are not made to clients that are gone, nor after the end", async () => {
    const pushed: number[] = [];
    const queue = new PushQueue(1);
    const all = clients(4, pushed);
    queue.add(all);
    queue.forget(all[1]!);
    await turn();
    queue.close();
    await turn();
    expect(pushed).toEqual([0, 2]);
  });
});
