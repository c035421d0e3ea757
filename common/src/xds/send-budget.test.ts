import { describe, expect, it } from "vitest";
import { SendBudget } from "./send-budget.ts";

describe("the send budget", () => {
  it("is taken up to its limit and no further", () => {
    const budget = new SendBudget(100);
    expect([budget.tryTake(60), budget.tryTake(40), budget.tryTake(1)]).toEqual([
      true,
      true,
      false,
    ]);
    expect(budget.used).toBe(100);
  });

  it("lets one response through that is larger than all of it", () => {
    const budget = new SendBudget(100);
    expect([budget.tryTake(101), budget.tryTake(1)]).toEqual([true, false]);
  });

  it("wakes those who wait, in order, and those who still do not fit wait on", () => {
    const budget = new SendBudget(100);
    const sent: number[] = [];
    const send = (bytes: number) => {
      const attempt = () => {
        if (budget.tryTake(bytes)) sent.push(bytes);
        else budget.wait(attempt);
      };
      attempt();
      return attempt;
    };
    send(100);
    send(70);
    send(50);
    const leaver = send(1);
    budget.forget(leaver);
    budget.giveBack(100);
    expect(sent).toEqual([100, 70]);
    budget.giveBack(70);
    expect(sent).toEqual([100, 70, 50]);
    expect(budget.used).toBe(50);
  });
});
