import { describe, expect, it } from "vitest";
import {
  frame,
  Http2Peer,
  RecordedStream,
  requestFrame,
  settings,
  uint32,
} from "../testing/http2-peer.ts";
import { hpackEncode } from "./hpack-encoder.ts";
import { ErrorCode, Flag } from "./protocol.ts";

const STATUS_200 = hpackEncode([{ name: ":status", value: "200" }]);
const answer = (id: number) => frame("HEADERS", Flag.END_HEADERS, id, STATUS_200);
const data = (id: number, bytes: number, end = false) =>
  frame("DATA", end ? Flag.END_STREAM : 0, id, Buffer.alloc(bytes));
const pong = frame("PING", Flag.ACK, 0, Buffer.alloc(8));
const goAway = (lastId: number) =>
  frame("GOAWAY", 0, 0, Buffer.concat([uint32(lastId), uint32(ErrorCode.NO_ERROR)]));
const window = (id: number, bytes: number) => frame("WINDOW_UPDATE", 0, id, uint32(bytes));

async function clientPeer() {
  const peer = await Http2Peer.greeted({ role: "client" });
  const open = () => new RecordedStream(peer.connection.request([], false));
  return { peer, open };
}

describe("keepalive", () => {
  const options = { pingIntervalMs: 10_000, pingTimeoutMs: 20_000 };

  it("pings an interval after the last answer", async () => {
    const peer = await Http2Peer.greeted(options);
    for (let round = 1; round <= 3; round++) {
      await peer.clock.advance(9999);
      expect(peer.frames).toHaveLength(round - 1);
      await peer.clock.advance(1);
      await peer.settled();
      expect(peer.seen.filter((text) => text === "PING 0")).toHaveLength(round);
      await peer.send(pong);
    }
  });

  it("gives a silent peer its time, then ends the connection and its streams", async () => {
    const peer = await Http2Peer.greeted(options);
    await peer.send(requestFrame(1));
    await peer.clock.advance(29_999);
    expect(peer.connection.closed).toBe(false);
    await peer.clock.advance(1);
    expect(peer.closedBecause).toBe("the peer does not answer pings");
    expect(peer.streams[0]!.events).toEqual(["abort CANCEL"]);
  });

  it("is not fooled by an answer nobody asked for, and stops with the connection", async () => {
    const peer = await Http2Peer.greeted(options);
    await peer.clock.advance(9000);
    await peer.send(pong);
    await peer.clock.advance(1000);
    await peer.settled();
    expect(peer.seen).toEqual(["PING 0"]);
    peer.connection.destroy();
    await peer.clock.advance(1000);
    expect(peer.clock.pendingTimers).toBe(0);
  });
});

describe("a server that drains", () => {
  it("announces first, takes what was under way, then names the last stream", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1));
    peer.connection.drain();
    await peer.settled();
    expect(peer.seen).toEqual(["GOAWAY 2147483647 NO_ERROR", "PING 0"]);
    await peer.send(requestFrame(3));
    await peer.send(pong);
    expect(peer.seen.at(-1)).toBe("GOAWAY 3 NO_ERROR");
    await peer.send(requestFrame(5));
    expect(peer.seen.at(-1)).toBe("RST_STREAM 5 REFUSED_STREAM");
    expect(peer.streams).toHaveLength(2);
  });

  it("ends with its last stream and not before", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1), requestFrame(3));
    peer.connection.drain();
    await peer.send(pong, frame("RST_STREAM", 0, 1, uint32(ErrorCode.CANCEL)));
    expect(peer.connection.closed).toBe(false);
    await peer.send(data(3, 10, true));
    peer.streams[1]!.stream.end();
    expect(peer.closedBecause).toBe("drained");
  });

  it("without streams ends as soon as the peer knows", async () => {
    const peer = await Http2Peer.greeted();
    peer.connection.drain();
    peer.connection.drain();
    expect(peer.connection.closed).toBe(false);
    await peer.send(pong);
    expect(peer.closedBecause).toBe("drained");
    expect(peer.seen.filter((text) => text === "GOAWAY 2147483647 NO_ERROR")).toHaveLength(1);
  });
});

describe("a client that is told to go", () => {
  it("opens no stream any more, keeps those the peer named and loses the others", async () => {
    const { peer, open } = await clientPeer();
    const [kept, lost] = [open(), open()];
    await peer.send(goAway(1));
    expect(peer.goAways).toBe(1);
    expect(kept.events).toEqual([]);
    expect(lost.events).toEqual(["abort REFUSED_STREAM"]);
    expect(open).toThrow("the connection takes no more streams");
    await peer.send(answer(1), data(1, 5, true));
    kept.stream.end();
    expect(kept.events).toEqual(["headers 200", "end"]);
    expect(peer.closedBecause).toBe("drained");
  });
});

describe("half-close", () => {
  it("by the peer leaves our direction open", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1), data(1, 3, true));
    const [recorded] = peer.streams;
    expect(recorded!.events).toEqual(["end"]);
    expect(recorded!.stream.write(Buffer.alloc(7))).toBe(true);
    recorded!.stream.end();
    await peer.settled();
    expect(peer.seen).toEqual(["DATA 1 7", "DATA 1 0 end"]);
    expect(peer.connection.activeStreams).toBe(0);
  });

  it("by us leaves the peer's direction open", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1));
    const [recorded] = peer.streams;
    recorded!.stream.end();
    await peer.send(data(1, 4), data(1, 5, true));
    expect([recorded!.bytes, recorded!.events]).toEqual([9, ["end"]]);
    expect(peer.connection.activeStreams).toBe(0);
  });

  it("waits for the bytes that the windows hold back", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(frame("SETTINGS", 0, 0, settings([4, 10])), requestFrame(1));
    const { stream } = peer.streams[0]!;
    expect(stream.write(Buffer.alloc(25))).toBe(false);
    stream.end();
    await peer.settled();
    expect(peer.seen).toEqual(["SETTINGS 0 ack", "DATA 1 10"]);
    await peer.send(window(1, 14));
    expect(peer.seen.at(-1)).toBe("DATA 1 14");
    await peer.send(window(1, 1));
    expect(peer.seen.slice(-2)).toEqual(["DATA 1 1", "DATA 1 0 end"]);
  });
});

describe("a stream that is over", () => {
  it("by our reset: what was under way is ignored, and its credit given back", async () => {
    const peer = await Http2Peer.greeted({ connectionWindowBytes: 65_536 });
    await peer.send(requestFrame(1));
    peer.streams[0]!.stream.reset(ErrorCode.CANCEL);
    await peer.send(data(1, 16_384), data(1, 16_384), window(1, 5), answer(1), data(1, 1, true));
    expect(peer.connection.closed).toBe(false);
    expect(peer.seen).toEqual(["RST_STREAM 1 CANCEL", "WINDOW_UPDATE 0 32768"]);
    expect(peer.streams[0]!.events).toEqual([]);
  });

  it("by its ends: more DATA is the peer's error", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1, true));
    peer.streams[0]!.stream.end();
    await peer.send(data(1, 1));
    expect(peer.seen.at(-1)).toBe("RST_STREAM 1 STREAM_CLOSED");
  });

  it("that never was: any frame on it ends the connection", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(data(5, 1));
    expect(peer.closedBecause).toBe("PROTOCOL_ERROR: frame on idle stream 5");
  });

  it("with the connection: each stream hears of it once", async () => {
    const { peer, open } = await clientPeer();
    const streams = [open(), open()];
    peer.socket.destroy();
    await peer.settled();
    expect(streams.map(({ events }) => events)).toEqual([["abort CANCEL"], ["abort CANCEL"]]);
    expect(streams[0]!.stream.write(Buffer.alloc(1))).toBe(true);
  });
});

describe("flow control", () => {
  it("splits at the peer's frame size and stops at its window", async () => {
    const { peer, open } = await clientPeer();
    await peer.send(frame("SETTINGS", 0, 0, settings([4, 40_000])));
    const recorded = open();
    await peer.settled();
    peer.frames.length = 0;
    expect(recorded.stream.write(Buffer.alloc(50_000))).toBe(false);
    await peer.settled();
    expect(peer.seen).toEqual(["DATA 1 16384", "DATA 1 16384", "DATA 1 7232"]);
    await peer.send(window(1, 100_000));
    expect(peer.seen.at(-1)).toBe("DATA 1 10000");
    expect(recorded.events).toEqual(["writable"]);
  });

  it("shares the connection's window and goes on with every stream when it grows", async () => {
    const { peer, open } = await clientPeer();
    const [a, b] = [open(), open()];
    a.stream.write(Buffer.alloc(60_000));
    expect(b.stream.write(Buffer.alloc(10_000))).toBe(false);
    await peer.send(window(0, 10_000));
    expect(b.events).toEqual(["writable"]);
    const sent = peer.frames.filter(({ type }) => type === "DATA");
    expect(sent.reduce((sum, { payload }) => sum + payload.length, 0)).toBe(70_000);
  });

  it("grants credit at half a window, and only for what was consumed", async () => {
    const peer = await Http2Peer.greeted({
      streamWindowBytes: 1000,
      connectionWindowBytes: 1 << 20,
    });
    await peer.send(requestFrame(1));
    const [recorded] = peer.streams;
    recorded!.consumes = false;
    await peer.send(data(1, 1000));
    recorded!.stream.consumed(499);
    await peer.settled();
    expect(peer.seen).toEqual([]);
    recorded!.stream.consumed(1);
    await peer.settled();
    expect(peer.seen).toEqual(["WINDOW_UPDATE 1 500"]);
  });

  it("bears a window that SETTINGS made negative", async () => {
    const { peer, open } = await clientPeer();
    const recorded = open();
    recorded.stream.write(Buffer.alloc(60_000));
    await peer.send(frame("SETTINGS", 0, 0, settings([4, 10_000])));
    expect(recorded.stream.write(Buffer.alloc(1))).toBe(false);
    await peer.send(window(1, 50_000));
    expect(recorded.events).toEqual([]);
    await peer.send(window(1, 1));
    expect(recorded.events).toEqual(["writable"]);
  });

  it("counts a promised body: neither more nor less may come", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1), requestFrame(3), requestFrame(5));
    for (const { stream } of peer.streams) stream.promiseBody(10);
    await peer.send(data(1, 10, true), data(3, 11), data(5, 9, true));
    expect(peer.seen).toEqual(["RST_STREAM 3 PROTOCOL_ERROR", "RST_STREAM 5 PROTOCOL_ERROR"]);
    expect(peer.streams[0]!.events).toEqual(["end"]);
  });
});
