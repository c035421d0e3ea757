import { describe, expect, it } from "vitest";
import {
  frame,
  Http2Peer,
  type PeerOptions,
  requestFrame,
  settings,
  uint32,
} from "../testing/http2-peer.ts";
import { hpackEncode } from "./hpack-encoder.ts";
import { RATE_WINDOW_MS } from "./limits.ts";
import { ErrorCode, Flag, WINDOW_MAX } from "./protocol.ts";

const times = (count: number, make: (i: number) => Buffer) =>
  Array.from({ length: count }, (_, i) => make(i));
const ping = () => frame("PING", 0, 0, Buffer.alloc(8));
const reset = (id: number) => frame("RST_STREAM", 0, id, uint32(ErrorCode.CANCEL));

describe("frames that make us work", () => {
  const limits = { controlFramesPerWindowMax: 10 };
  /** The greeting's SETTINGS was the first of the ten. */
  const ALLOWED = 9;

  it.each([
    ["PING", ping],
    ["SETTINGS", () => frame("SETTINGS", 0, 0)],
    ["PRIORITY", () => frame("PRIORITY", 0, 3, Buffer.alloc(5))],
    ["empty DATA", () => frame("DATA", 0, 1)],
    ["an unknown type", () => Buffer.from("00000063000000000000", "hex").subarray(0, 9)],
  ])("%s is let through up to the bound and ends the connection past it", async (_, make) => {
    const peer = await Http2Peer.greeted({ limits });
    await peer.send(requestFrame(1), ...times(ALLOWED, make));
    expect(peer.connection.closed).toBe(false);
    await peer.send(make());
    expect(peer.closedBecause).toBe("ENHANCE_YOUR_CALM: too many control frames");
    expect(peer.seen.at(-1)).toBe("GOAWAY 1 ENHANCE_YOUR_CALM");
  });

  it("are counted anew in the next window", async () => {
    const peer = await Http2Peer.greeted({ limits });
    for (let window = 0; window < 3; window++) {
      await peer.clock.advance(RATE_WINDOW_MS);
      await peer.send(...times(10, ping));
      expect(peer.connection.closed).toBe(false);
    }
  });

  it("do not include acknowledgements and window updates, which answer our own", async () => {
    const peer = await Http2Peer.greeted({ limits });
    await peer.send(
      ...times(50, () => frame("SETTINGS", Flag.ACK, 0)),
      ...times(50, () => frame("WINDOW_UPDATE", 0, 0, uint32(1))),
    );
    expect(peer.connection.closed).toBe(false);
  });

  it("do not include the empty DATA that ends a stream", async () => {
    const peer = await Http2Peer.greeted({ limits });
    const ended = (i: number) => [
      requestFrame(2 * i + 1),
      frame("DATA", Flag.END_STREAM, 2 * i + 1),
    ];
    for (let i = 0; i < 50; i++) {
      await peer.send(...ended(i));
      peer.streams[i]!.stream.end();
    }
    expect(peer.connection.closed).toBe(false);
  });

  it("end the connection when their answers are not read, though it has streams", async () => {
    const peer = await Http2Peer.greeted({
      limits: { controlFramesPerWindowMax: 1e6, controlQueueBytesMax: 100_000 },
    });
    peer.socket.pause();
    await peer.send(requestFrame(1), ...times(5000, ping));
    expect(peer.connection.closed).toBe(false);
    await peer.send(...times(10_000, ping));
    expect(peer.closedBecause).toBe("ENHANCE_YOUR_CALM: the peer does not read its answers");
  });
});

describe("resets", () => {
  const limits = { resetsPerWindowMax: 5, streamsMax: 2 };
  const rapid = (i: number) => Buffer.concat([requestFrame(2 * i + 1), reset(2 * i + 1)]);

  it("by the peer are bounded: rapid reset costs it the connection", async () => {
    const peer = await Http2Peer.greeted({ limits });
    await peer.send(...times(5, rapid));
    expect(peer.connection.closed).toBe(false);
    await peer.send(rapid(5));
    expect(peer.closedBecause).toBe("ENHANCE_YOUR_CALM: too many resets");
    expect(peer.streams.map(({ events }) => events.join())).toEqual([
      ...Array.from({ length: 5 }, () => "abort CANCEL"),
      "abort ENHANCE_YOUR_CALM",
    ]);
  });

  it("of streams that were answered are not among them", async () => {
    const peer = await Http2Peer.greeted({ limits });
    for (let i = 0; i < 50; i++) {
      await peer.send(requestFrame(2 * i + 1));
      peer.streams[i]!.stream.sendHeaders([{ name: ":status", value: "200" }]);
      await peer.send(reset(2 * i + 1));
    }
    expect(peer.connection.closed).toBe(false);
  });

  it("that the peer provokes are bounded alike", async () => {
    const provoke = (i: number) =>
      Buffer.concat([requestFrame(2 * i + 1), frame("WINDOW_UPDATE", 0, 2 * i + 1, uint32(0))]);
    const peer = await Http2Peer.greeted({ limits });
    await peer.send(...times(5, provoke));
    expect(peer.connection.closed).toBe(false);
    expect(peer.seen.filter((text) => text.startsWith("RST_STREAM"))).toHaveLength(5);
    await peer.send(provoke(5));
    expect(peer.closedBecause).toBe("ENHANCE_YOUR_CALM: too many resets");
  });
});

describe("streams", () => {
  it("are refused past the bound, one by one; those open go on", async () => {
    const peer = await Http2Peer.greeted({ limits: { streamsMax: 3 } });
    await peer.send(...times(4, (i) => requestFrame(2 * i + 1)));
    expect(peer.seen).toEqual(["RST_STREAM 7 REFUSED_STREAM"]);
    expect(peer.connection.activeStreams).toBe(3);
    await peer.send(reset(1), requestFrame(9));
    expect(peer.connection.activeStreams).toBe(3);
  });

  it("refused without end cost the peer its connection", async () => {
    const peer = await Http2Peer.greeted({ limits: { streamsMax: 0, resetsPerWindowMax: 5 } });
    await peer.send(...times(5, (i) => requestFrame(2 * i + 1)));
    expect(peer.connection.closed).toBe(false);
    await peer.send(requestFrame(11));
    expect(peer.closedBecause).toBe("ENHANCE_YOUR_CALM: too many resets");
  });
});

describe("header blocks", () => {
  /** A request whose list counts exactly `bytes` (RFC 9113 §6.5.2). */
  function requestOf(bytes: number): Buffer {
    const method = { name: ":method", value: "CONNECT" };
    const empty = method.name.length + method.value.length + 32 + "x".length + 32;
    return hpackEncode([method, { name: "x", value: "v".repeat(bytes - empty) }]);
  }
  const whole = (id: number, block: Buffer) => frame("HEADERS", Flag.END_HEADERS, id, block);
  const cut = (id: number, ...parts: readonly Buffer[]) =>
    Buffer.concat(
      parts.map((part, i) => {
        const flags = i === parts.length - 1 ? Flag.END_HEADERS : 0;
        return frame(i === 0 ? "HEADERS" : "CONTINUATION", flags, id, part);
      }),
    );

  it("whose list passes the bound cost the stream, not the connection", async () => {
    const peer = await Http2Peer.greeted({ limits: { headerListBytesMax: 1000 } });
    await peer.send(whole(1, requestOf(1000)), whole(3, requestOf(1001)));
    expect(peer.seen).toEqual(["RST_STREAM 3 ENHANCE_YOUR_CALM"]);
    expect(peer.streams).toHaveLength(1);
  });

  it("are bounded in compressed bytes over all their frames", async () => {
    const limits = { headerBlockBytesMax: 100, headerListBytesMax: 10_000 };
    const fits = requestOf(100 + 60);
    const block = Buffer.concat([fits.subarray(0, 60), Buffer.alloc(40, 0x82)]);
    const peer = await Http2Peer.greeted({ limits });
    await peer.send(cut(1, Buffer.alloc(50, 0x82), Buffer.alloc(50, 0x82)));
    expect(peer.connection.closed).toBe(false);
    await peer.send(cut(3, block, Buffer.alloc(1, 0x82)));
    expect(peer.closedBecause).toBe("ENHANCE_YOUR_CALM: header block too large");
  });

  it("are bounded in CONTINUATION frames, empty ones too", async () => {
    const limits = { continuationsMax: 4 };
    const parts = (continuations: number) =>
      [requestOf(200), ...times(continuations, () => Buffer.alloc(0))] as const;
    const peer = await Http2Peer.greeted({ limits });
    await peer.send(cut(1, ...parts(4)));
    expect([peer.connection.closed, peer.streams.length]).toEqual([false, 1]);
    await peer.send(cut(3, ...parts(5)));
    expect(peer.closedBecause).toBe("ENHANCE_YOUR_CALM: header block too large");
  });

  it("may not be interrupted by any other frame", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(frame("HEADERS", 0, 1, requestOf(200)), frame("DATA", 0, 1, Buffer.alloc(1)));
    expect(peer.closedBecause).toBe("PROTOCOL_ERROR: a header block was interrupted");
  });
});

describe("frames", () => {
  it("of the announced size pass and one byte more ends the connection", async () => {
    const peer = await Http2Peer.greeted({ frameBytesMax: 16_384 });
    await peer.send(requestFrame(1), frame("DATA", 0, 1, Buffer.alloc(16_384)));
    expect(peer.streams[0]!.bytes).toBe(16_384);
    await peer.send(frame("DATA", 0, 1, Buffer.alloc(16_385)));
    expect(peer.closedBecause).toBe("FRAME_SIZE_ERROR: frame of 16385 bytes");
  });

  it("after one that costs its stream are still read, in the same read", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1), frame("PRIORITY", 0, 1, Buffer.alloc(4)), requestFrame(3));
    expect(peer.seen).toEqual(["RST_STREAM 1 FRAME_SIZE_ERROR"]);
    expect(peer.streams).toHaveLength(2);
  });

  it.each<[string, PeerOptions, Buffer, string]>([
    [
      "no preface",
      {},
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      "PROTOCOL_ERROR: not an HTTP/2 client",
    ],
    [
      "something before SETTINGS",
      { role: "client" },
      ping(),
      "PROTOCOL_ERROR: the first frame must be SETTINGS",
    ],
  ])("cannot start with %s", async (_, options, bytes, reason) => {
    const peer = new Http2Peer(options);
    await peer.send(bytes);
    expect(peer.closedBecause).toBe(reason);
  });
});

describe("windows", () => {
  const window = (id: number, bytes: number) => frame("WINDOW_UPDATE", 0, id, uint32(bytes));
  const room = WINDOW_MAX - 65_535;

  it("of the connection grow up to 2^31-1 and not past it", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(window(0, room));
    expect(peer.connection.closed).toBe(false);
    await peer.send(window(0, 1));
    expect(peer.closedBecause).toBe("FLOW_CONTROL_ERROR: connection window overflow");
  });

  it("of a stream overflow at the stream's cost", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1), requestFrame(3), window(1, room), window(3, room + 1));
    expect(peer.seen).toEqual(["RST_STREAM 3 FLOW_CONTROL_ERROR"]);
  });

  it("overflow by SETTINGS too", async () => {
    const peer = await Http2Peer.greeted();
    await peer.send(requestFrame(1), window(1, room));
    await peer.send(frame("SETTINGS", 0, 0, settings([4, 65_536])));
    expect(peer.closedBecause).toBe("FLOW_CONTROL_ERROR: stream window overflow by SETTINGS");
  });

  it("that the peer exceeds on a stream cost the stream", async () => {
    const peer = await Http2Peer.greeted({ streamWindowBytes: 100 });
    await peer.send(requestFrame(1), requestFrame(3));
    for (const recorded of peer.streams) recorded.consumes = false;
    await peer.send(frame("DATA", 0, 1, Buffer.alloc(100)), frame("DATA", 0, 3, Buffer.alloc(101)));
    expect(peer.seen).toEqual(["RST_STREAM 3 FLOW_CONTROL_ERROR"]);
    expect(peer.streams.map(({ bytes }) => bytes)).toEqual([100, 0]);
  });

  it("that the peer exceeds on the connection end it", async () => {
    const peer = await Http2Peer.greeted({
      streamWindowBytes: 1 << 20,
      connectionWindowBytes: 65_535,
      frameBytesMax: 1 << 20,
    });
    await peer.send(requestFrame(1));
    peer.streams[0]!.consumes = false;
    await peer.send(frame("DATA", 0, 1, Buffer.alloc(65_535)));
    expect(peer.connection.closed).toBe(false);
    await peer.send(frame("DATA", 0, 1, Buffer.alloc(1)));
    expect(peer.closedBecause).toBe("FLOW_CONTROL_ERROR: connection window exceeded");
  });
});
