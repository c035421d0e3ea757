import { beforeEach, describe, expect, it } from "vitest";
import { FakeClock } from "@ambit/common/testing/fake-clock.ts";
import { TestCa } from "@ambit/common/testing/test-ca.ts";
import { type SpiffeId, spiffeId } from "@ambit/common/tls/identity.ts";
import { CertificateView, type Urgency } from "./certificates.ts";

const identity = { trustDomain: "td", namespace: "ns", serviceAccount: "web" };
const ID = spiffeId(identity);
const HOUR_MS = 3_600_000;
const certificate = new TestCa().issue(identity);

let clock: FakeClock;
let asked: [SpiffeId, Urgency][];
let view: CertificateView;

beforeEach(() => {
  clock = new FakeClock(Date.now());
  asked = [];
  view = new CertificateView(clock, (id, urgency) => asked.push([id, urgency]));
});

describe("a certificate", () => {
  it("is asked for once by many connections, and given to all of them", async () => {
    const waiting = Array.from({ length: 1_000 }, () => view.get(ID));
    expect(asked).toEqual([[ID, "now"]]);
    view.update(ID, certificate);
    expect(new Set(await Promise.all(waiting))).toEqual(new Set([certificate]));
    expect(clock.pendingTimers).toBe(0);
  });

  it("is asked for early without hurry, and with hurry once a connection waits", async () => {
    view.warm(ID);
    view.warm(ID);
    const waiting = [view.get(ID), view.get(ID)];
    expect(asked).toEqual([
      [ID, "warmup"],
      [ID, "now"],
    ]);
    view.update(ID, certificate);
    await Promise.all(waiting);
    view.warm(ID);
    expect(asked).toHaveLength(2);
  });

  it("that is there is given at once, and the newer one after a renewal", async () => {
    view.update(ID, certificate);
    expect(await view.get(ID)).toBe(certificate);
    const renewed = { ...certificate };
    view.update(ID, renewed);
    expect([await view.get(ID), view.current(ID)]).toEqual([renewed, renewed]);
    expect(asked).toEqual([]);
  });

  it("that has expired is not given any more", async () => {
    view.update(ID, certificate);
    await clock.advance(2 * HOUR_MS);
    expect(view.current(ID)).toBeUndefined();
    await expect(view.get(ID)).rejects.toMatchObject({ code: "IDENTITY_UNAVAILABLE" });
    await expect(view.get(ID)).rejects.toThrow("the certificate has expired");
  });

  it("that cannot be had is refused at once with the reason, until it can", async () => {
    const waiting = view.get(ID);
    view.update(ID, undefined, "CA away");
    await expect(waiting).rejects.toThrow(`identity ${ID} is unavailable: CA away`);
    await expect(view.get(ID)).rejects.toThrow("CA away");
    view.update(ID, certificate);
    expect(await view.get(ID)).toBe(certificate);
  });

  it("is waited for ten seconds, not longer", async () => {
    const waiting = view.get(ID);
    const refused = expect(waiting).rejects.toThrow("no certificate within 10 s");
    await clock.advance(10_000);
    await refused;
    view.update(ID, certificate);
    expect(await view.get(ID)).toBe(certificate);
  });

  it("of an identity that is no longer local is forgotten, and asked for anew if it returns", async () => {
    const waiting = view.get(ID);
    view.update(ID, undefined);
    await expect(waiting).rejects.toThrow("no longer a local identity");
    view.update(ID, certificate);
    view.update(ID, undefined);
    expect(view.current(ID)).toBeUndefined();
    void view.get(ID);
    expect(asked).toHaveLength(2);
  });
});
