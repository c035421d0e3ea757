/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs share with each other and with user space: layouts, maps, counters. Addresses and
 * ports are in network byte order; an IPv4 address is written as its IPv4-mapped IPv6 address.
 * User space reads these layouts from the object's BTF: common/src/sys/bpf-layout.gen.ts.
 */
#ifndef AMBIT_STATE_H
#define AMBIT_STATE_H

#include "helpers.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SO_MARK 36

/* Of structures and maps: another number means other maps, which take no old entries. */
#define LAYOUT_VERSION 5

/* Pods of one node that can be enrolled at once; kubelet's own limit is far below. */
#define SLOTS_MAX 1024
#define LISTENERS_MAX 4096 /* SLOTS_MAX * ROLES */
#define ADDRESSES_MAX 8192
/* One per connection that ztunnel is just opening to an application: freed when it is accepted. */
#define PASSES_MAX 65536
/* One per probe that kubelet is just opening: a few seconds' for a full node, were none answered. */
#define PROBES_MAX 4096
/* One, two during an upgrade, and room for cgroups not yet collected. */
#define PROXIES_MAX 16

/* The mark that makes a destination local (ip rule, table 100), and the bits that are ours. */
#define CAPTURE_MARK 0x111
#define MARK_MASK 0xfff
#define HBONE_PORT 15008
#define DNS_PORT 53
#define DNS_PROXY_PORT 15053

struct address {
	__u32 word[4];
};

struct endpoint {
	struct address ip;
	__u16 port;
	__u16 pad;
};

/* Which of ztunnel's listeners of a pod; the index in `listeners` is slot * ROLES + role. */
enum role { ROLE_OUTBOUND, ROLE_PLAINTEXT, ROLE_HBONE, ROLE_DNS, ROLES };

/*
 * RELEASED: the pod is leaving. Its own connections are its own again; ztunnel still serves those it has,
 * and delivers what comes through tunnels of peers that have not heard of it.
 */
enum slot_flag { SLOT_ENABLED = 1, SLOT_INBOUND = 2, SLOT_DNS = 4, SLOT_RELEASED = 8 };

struct slot {
	enum slot_flag flags; /* any of them, or'ed */
};

/*
 * Who has a slot: what `pods` and `addresses` say, found by number. The first address of each family; all zero
 * when there is none. `flows` is counted atomically, by user space too, for which the map can be mapped.
 */
struct occupant {
	__u64 netns; /* cookie; 0: not enrolled */
	struct address ipv4;
	struct address ipv6;
	__s32 flows; /* direct connections that it has begun and that have not ended */
	__u32 link; /* index of the node's end of its link, if shortcut.h may be used there; or 0 */
};

struct pod_address {
	__u32 slot;
	struct address ip;
};

/* One connection that may pass the steering, once. */
struct pass_key {
	struct address source;
	struct address destination;
	__u16 source_port;
	__u16 destination_port;
	__u32 slot; /* the destination's */
};

struct pass {
	__u64 cookie; /* of the connecting socket */
};

/* A direct connection (direct.h): the addresses and ports of its SYN. */
struct flow_key {
	struct address source;
	struct address destination;
	__u16 source_port;
	__u16 destination_port;
};

/*
 * REPLACED: of an earlier connection with the same ports the destination may still have a socket. CLOSED: the
 * destination has none any more, and the client has yet to hear of it; LEFT: the client has closed its own.
 */
enum flow_flag { FLOW_USED = 1, FLOW_REPLACED = 2, FLOW_CLOSED = 4, FLOW_LEFT = 8 };

struct flow {
	__u64 cookie; /* of the connecting socket */
	__u64 netns; /* the source's */
	__u64 started_ns;
	__u16 slot; /* the destination's */
	__u16 source; /* the source's slot */
	__u32 generation; /* of the destination's */
	enum flow_flag flags; /* any of them, or'ed */
	__u32 source_link; /* of both pods; both 0: its packets go the way they always went */
	__u32 link;
	struct endpoint service; /* all zero when the pod was called by its own address */
};

struct ended_flow {
	struct flow flow;
	struct flow_key key;
	__u32 state; /* of the destination's socket, before it was closed */
	__u64 ended_ns;
	__u64 received; /* by the destination */
	__u64 acked; /* of what the destination sent */
};

_Static_assert(sizeof(struct endpoint) == 20, "endpoint has no holes");
_Static_assert(sizeof(struct occupant) == 48, "occupant has no holes");
_Static_assert(SLOTS_MAX <= 65536, "flow has room for slots");
_Static_assert(sizeof(struct pass_key) == 40, "pass_key has no holes");
_Static_assert(sizeof(struct flow_key) == 36, "flow_key has no holes");
_Static_assert(sizeof(struct flow) == 64, "flow has no holes");
_Static_assert(sizeof(struct ended_flow) == 128, "ended_flow has no holes");

enum counter {
	COUNT_CAPTURED,
	COUNT_LOCAL,
	COUNT_DEVICE_CLEARED,
	COUNT_REFUSED_NO_LISTENER,
	COUNT_REFUSED_LEASE,
	COUNT_REFUSED_MARK,
	COUNT_REFUSED_DEVICE,
	COUNT_TO_OUTBOUND,
	COUNT_TO_PLAINTEXT,
	COUNT_TO_HBONE,
	COUNT_TO_DNS,
	COUNT_PASSED_PROXY,
	COUNT_PASSED_PROBE,
	COUNT_DROPPED_NO_LISTENER,
	COUNT_DROPPED_ASSIGN,
	COUNT_PASS_INSERTED,
	COUNT_PASS_CONSUMED,
	COUNT_PASS_EXPIRED,
	COUNT_PASS_INSERT_FAILED,
	COUNT_CALLBACK_FAILED,
	COUNT_DNS_REDIRECTED,
	COUNT_DNS_STORAGE_FAILED,
	COUNT_DIRECT_CHOSEN,
	COUNT_DIRECT_STORAGE_FAILED,
	COUNT_DIRECT_STARTED,
	COUNT_DIRECT_STALE,
	COUNT_DIRECT_SPOOFED,
	COUNT_DIRECT_INSERT_FAILED,
	COUNT_DIRECT_POD_FULL,
	COUNT_DIRECT_PASSED,
	COUNT_DIRECT_SHORTCUT,
	COUNT_DIRECT_FAILED,
	COUNT_DIRECT_ENDED,
	COUNT_DIRECT_UNREPORTED,
	COUNTERS
};

/* Which pod lives in a network namespace: netns cookie to slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS_MAX);
	__type(key, __u64);
	__type(value, __u32);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS_MAX);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct occupant);
} occupants SEC(".maps");

/* The addresses that are a pod's own; the value means nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct pod_address);
	__type(value, __u32);
} addresses SEC(".maps");

/* ztunnel's listening sockets, by slot * ROLES + role. One that is closed leaves by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, LISTENERS_MAX);
	__type(key, enum role);
	__type(value, __u64);
} listeners SEC(".maps");

/* The cgroups whose sockets are ztunnel's own: cgroup id; the value means nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROXIES_MAX);
	__type(key, __u64);
	__type(value, __u32);
} proxies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PASSES_MAX);
	__type(key, struct pass_key);
	__type(value, struct pass);
} passes SEC(".maps");

/* Where kubelet may probe: addresses of enrolled pods, with their slots. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct address);
	__type(value, __u32);
} probe_targets SEC(".maps");

/* The same as passes, for what kubelet opens. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROBES_MAX);
	__type(key, struct pass_key);
	__type(value, struct pass);
} probes SEC(".maps");

/* Until when ztunnel is alive, as ktime in ns; 0: nobody has taken the lease. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lease SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

/* Where a UDP socket last sent a query that was redirected to the DNS proxy. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct endpoint);
} resolvers SEC(".maps");

/* Constants of one loaded instance. One struct: clang orders separate variables by first use. */
const volatile struct settings {
	__u64 node_netns; /* cookie of the node's own namespace: where kubelet's probes are made */
	__u32 slot; /* of the pod whose namespace a `steer` is attached to */
	enum counter counters; /* how many; keeps their names among the object's types */
	struct ended_flow ended[0]; /* keeps the structure among the object's types */
} settings;

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += 1;
}

static __always_inline void from_ipv4(struct address *to, __be32 ip)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = bpf_htonl(0xffff);
	to->word[3] = ip;
}

static __always_inline int same_address(const struct address *a, const struct address *b)
{
	return a->word[3] == b->word[3] && a->word[2] == b->word[2] && a->word[1] == b->word[1] &&
	       a->word[0] == b->word[0];
}

static __always_inline int is_ipv4(const struct address *ip)
{
	return !ip->word[0] && !ip->word[1] && ip->word[2] == bpf_htonl(0xffff);
}

/* 127.0.0.0/8 and ::1 */
static __always_inline int is_loopback(const struct address *ip)
{
	if (is_ipv4(ip))
		return (ip->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !ip->word[0] && !ip->word[1] && !ip->word[2] && ip->word[3] == bpf_htonl(1);
}

/* fe80::/10: reached through one device only, so never by way of lo. */
static __always_inline int is_link_local(const struct address *ip)
{
	return (ip->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline int is_own(__u32 slot, const struct address *ip)
{
	struct pod_address key = {.slot = slot, .ip = *ip};

	return bpf_map_lookup_elem(&addresses, &key) != 0;
}

/* The same, where it is likely that it is. */
static __always_inline int is_occupants(__u32 slot, const struct occupant *occupant,
					const struct address *ip)
{
	return same_address(&occupant->ipv4, ip) || same_address(&occupant->ipv6, ip) ||
	       is_own(slot, ip);
}

/* Who has the slot, if that is a pod that is enrolled with this network namespace. */
static __always_inline struct occupant *find_occupant(__u32 slot, __u64 netns_cookie)
{
	struct occupant *occupant = bpf_map_lookup_elem(&occupants, &slot);

	return occupant && occupant->netns == netns_cookie ? occupant : 0;
}

/* Whether the context's socket lives in an enrolled pod, and in which. */
static __always_inline int find_pod(__u64 netns_cookie, __u32 *slot)
{
	__u32 *found = bpf_map_lookup_elem(&pods, &netns_cookie);

	if (!found)
		return 0;
	*slot = *found;
	return 1;
}

/* The same, with what is captured in it; 0 when there is none. */
static __always_inline struct slot *find_slot(__u64 netns_cookie, __u32 *slot)
{
	return find_pod(netns_cookie, slot) ? bpf_map_lookup_elem(&slots, slot) : 0;
}

#endif
