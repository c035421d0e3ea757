import { expect, it } from "vitest";
import { uncaught } from "../testing/uncaught.ts";
import { atTurnEnd, holdTurns, releaseTurns, runTurnEnd, turnEndWaits } from "./turn-end.ts";

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

it("does what was put off in this turn of Node's, once and in order, after its promises", async () => {
  const heard: string[] = [];
  atTurnEnd(() => heard.push("a"));
  atTurnEnd(() => heard.push("b"));
  void Promise.resolve().then(() => heard.push("promise"));
  expect(heard).toEqual([]);
  await turn();
  await turn();
  expect(heard).toEqual(["promise", "a", "b"]);
});

it("leaves to the next turn what is put off at the end of one", async () => {
  const heard: string[] = [];
  holdTurns();
  atTurnEnd(() => {
    heard.push("first");
    atTurnEnd(() => heard.push("second"));
  });
  runTurnEnd();
  expect(heard).toEqual(["first"]);
  expect(turnEndWaits()).toBe(true);
  releaseTurns();
  expect(heard).toEqual(["first"]);
  await turn();
  expect(heard).toEqual(["first", "second"]);
});

it("does the rest when one of them throws, which is an uncaught exception", async () => {
  using errors = uncaught();
  const heard: string[] = [];
  atTurnEnd(() => {
    throw new Error("of the first");
  });
  atTurnEnd(() => heard.push("second"));
  await turn();
  expect(heard).toEqual(["second"]);
  await expect.poll(() => errors.messages).toEqual(["of the first"]);
});
