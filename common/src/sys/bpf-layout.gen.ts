// Generated from bpf/ambit.bpf.o by bpf/src/build.ts: do not edit. What the programs and user space share.

/** Sizes and offsets in bytes. */
export const STRUCTS = {
  address: {
    bytes: 16,
    word: 0,
  },
  endpoint: {
    bytes: 20,
    ip: 0,
    port: 16,
    pad: 18,
  },
  slot: {
    bytes: 4,
    flags: 0,
  },
  occupant: {
    bytes: 40,
    netns: 0,
    ipv4: 8,
    ipv6: 24,
  },
  podAddress: {
    bytes: 20,
    slot: 0,
    ip: 4,
  },
  passKey: {
    bytes: 40,
    source: 0,
    destination: 16,
    sourcePort: 32,
    destinationPort: 34,
    slot: 36,
  },
  pass: {
    bytes: 8,
    cookie: 0,
  },
  verdictKey: {
    bytes: 32,
    netns: 0,
    to: 8,
    pad: 28,
  },
  backend: {
    bytes: 32,
    to: 0,
    slot: 20,
    generation: 24,
    until: 28,
  },
  verdict: {
    bytes: 264,
    source: 0,
    draws: 4,
    backends: 8,
  },
  flowKey: {
    bytes: 36,
    source: 0,
    destination: 16,
    sourcePort: 32,
    destinationPort: 34,
  },
  flow: {
    bytes: 56,
    cookie: 0,
    netns: 8,
    startedNs: 16,
    slot: 24,
    generation: 28,
    flags: 32,
    service: 36,
  },
  endedFlow: {
    bytes: 120,
    flow: 0,
    key: 56,
    state: 92,
    endedNs: 96,
    received: 104,
    acked: 112,
  },
  settings: {
    bytes: 16,
    nodeNetns: 0,
    slot: 8,
    counters: 12,
    ended: 16,
  },
} as const;

/** Maps as the object declares them. */
export const MAPS = {
  passes: {
    type: 1,
    keyBytes: 40,
    valueBytes: 8,
    entriesMax: 65536,
  },
  probe_targets: {
    type: 1,
    keyBytes: 16,
    valueBytes: 4,
    entriesMax: 8192,
  },
  probes: {
    type: 1,
    keyBytes: 40,
    valueBytes: 8,
    entriesMax: 4096,
  },
  pods: {
    type: 1,
    keyBytes: 8,
    valueBytes: 4,
    entriesMax: 1024,
  },
  slots: {
    type: 2,
    keyBytes: 4,
    valueBytes: 4,
    entriesMax: 1024,
  },
  occupants: {
    type: 2,
    keyBytes: 4,
    valueBytes: 40,
    entriesMax: 1024,
  },
  addresses: {
    type: 1,
    keyBytes: 20,
    valueBytes: 4,
    entriesMax: 8192,
  },
  listeners: {
    type: 15,
    keyBytes: 4,
    valueBytes: 8,
    entriesMax: 4096,
  },
  proxies: {
    type: 1,
    keyBytes: 8,
    valueBytes: 4,
    entriesMax: 16,
  },
  lease: {
    type: 2,
    keyBytes: 4,
    valueBytes: 8,
    entriesMax: 1,
  },
  counters: {
    type: 6,
    keyBytes: 4,
    valueBytes: 8,
    entriesMax: 32,
  },
  resolvers: {
    type: 24,
    keyBytes: 4,
    valueBytes: 20,
    entriesMax: 0,
  },
  verdicts: {
    type: 1,
    keyBytes: 32,
    valueBytes: 264,
    entriesMax: 16384,
  },
  generations: {
    type: 2,
    keyBytes: 4,
    valueBytes: 4,
    entriesMax: 1024,
  },
  flows: {
    type: 1,
    keyBytes: 36,
    valueBytes: 56,
    entriesMax: 65536,
  },
  called: {
    type: 24,
    keyBytes: 4,
    valueBytes: 32,
    entriesMax: 0,
  },
  ended: {
    type: 27,
    keyBytes: 0,
    valueBytes: 0,
    entriesMax: 1048576,
  },
} as const;

export const Role = {
  OUTBOUND: 0,
  PLAINTEXT: 1,
  HBONE: 2,
  DNS: 3,
} as const;

export const SlotFlag = {
  ENABLED: 1,
  INBOUND: 2,
  DNS: 4,
  RELEASED: 8,
} as const;

export const FlowFlag = {
  USED: 1,
  REPLACED: 2,
} as const;

export const Counter = {
  CAPTURED: 0,
  LOCAL: 1,
  DEVICE_CLEARED: 2,
  REFUSED_NO_LISTENER: 3,
  REFUSED_LEASE: 4,
  REFUSED_MARK: 5,
  REFUSED_DEVICE: 6,
  TO_OUTBOUND: 7,
  TO_PLAINTEXT: 8,
  TO_HBONE: 9,
  TO_DNS: 10,
  PASSED_PROXY: 11,
  PASSED_PROBE: 12,
  DROPPED_NO_LISTENER: 13,
  DROPPED_ASSIGN: 14,
  PASS_INSERTED: 15,
  PASS_CONSUMED: 16,
  PASS_EXPIRED: 17,
  PASS_INSERT_FAILED: 18,
  CALLBACK_FAILED: 19,
  DNS_REDIRECTED: 20,
  DNS_STORAGE_FAILED: 21,
  DIRECT_CHOSEN: 22,
  DIRECT_STORAGE_FAILED: 23,
  DIRECT_STARTED: 24,
  DIRECT_STALE: 25,
  DIRECT_SPOOFED: 26,
  DIRECT_INSERT_FAILED: 27,
  DIRECT_PASSED: 28,
  DIRECT_FAILED: 29,
  DIRECT_ENDED: 30,
  DIRECT_UNREPORTED: 31,
} as const;

/** Numbers of the C sources. */
export const CONSTANTS = {
  AF_INET: 2,
  AF_INET6: 10,
  IPPROTO_TCP: 6,
  IPPROTO_UDP: 17,
  IPPROTO_MPTCP: 262,
  SOL_SOCKET: 1,
  SO_BINDTODEVICE: 25,
  SO_MARK: 36,
  LAYOUT_VERSION: 3,
  SLOTS_MAX: 1024,
  LISTENERS_MAX: 4096,
  ADDRESSES_MAX: 8192,
  PASSES_MAX: 65536,
  PROBES_MAX: 4096,
  PROXIES_MAX: 16,
  CAPTURE_MARK: 273,
  MARK_MASK: 4095,
  HBONE_PORT: 15008,
  DNS_PORT: 53,
  DNS_PROXY_PORT: 15053,
  VERDICTS_MAX: 16384,
  BACKENDS_MAX: 8,
  FLOWS_MAX: 65536,
  ENDED_BYTES: 1048576,
} as const;
