/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Same-node connections that go straight from application to application. ztunnel writes a verdict after it
 * has authorized a connection; later ones to the same destination are left unmarked, each with an entry
 * in `flows` that lets exactly its SYN past steer.h, once. Without a current verdict nothing here happens, and
 * the connection is captured. Checked three times: at connect(), when the SYN is made, and where it arrives.
 */
#ifndef AMBIT_DIRECT_H
#define AMBIT_DIRECT_H

#include "state.h"

/* Destinations that pods of one node have been allowed: 64 for each of 256 pods. */
#define VERDICTS_MAX 16384
/* Endpoints of one service on one node; a service that has more there is not called directly. */
#define BACKENDS_MAX 8
/* Direct connections of one node at once: one more goes through ztunnel. */
#define FLOWS_MAX 65536
/* And of one pod: no pod can take the room of all, with SYNs that nobody answers, for instance. */
#define FLOWS_OF_POD_MAX 8192
/* Begun past that by those who looked at the same time: as many as CPUs, and no SYNs that were held back. */
#define FLOWS_AT_ONCE_MAX 256
/* Ended connections that user space has not read yet: about 8000. */
#define ENDED_BYTES 1048576

/* Who (by network namespace, which nobody can forge) calls what, as the application wrote it. */
struct verdict_key {
	__u64 netns;
	struct endpoint to;
	__u32 pad;
};

struct backend {
	struct endpoint to;
	__u32 slot;
	__u32 generation; /* of that slot, when the verdict was made */
	__u32 until;	  /* a draw below this, and not below the one before's, means this one */
};

struct verdict {
	__u32 source; /* the calling pod's slot */
	__u32 draws; /* the last backend's `until` */
	struct backend backends[BACKENDS_MAX];
};

/* What a socket called, when its destination was rewritten to a backend. */
struct called {
	struct endpoint service;
	__u32 source; /* the calling pod's slot */
	__u32 slot;
	__u32 generation;
};

_Static_assert(sizeof(struct verdict_key) == 32, "verdict_key has no holes");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VERDICTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* most pods of most nodes have none */
	__type(key, struct verdict_key);
	__type(value, struct verdict);
} verdicts SEC(".maps");

/* By slot. Another number than a verdict's: what it said of that slot is no longer true. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} generations SEC(".maps");

/* From the client's SYN to the end of the destination's socket. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS_MAX);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct called);
} called SEC(".maps");

/* Of struct ended_flow. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ENDED_BYTES);
} ended SEC(".maps");

static __always_inline int same_endpoint(const struct endpoint *a, const struct endpoint *b)
{
	return same_address(&a->ip, &b->ip) && a->port == b->port;
}

static __always_inline int is_current(__u32 slot, __u32 generation)
{
	__u32 *current = bpf_map_lookup_elem(&generations, &slot);

	return current && *current == generation;
}

/* Who has the slot, if that is the pod with this network namespace, and it is captured. */
static __always_inline struct occupant *find_caller(__u32 slot, __u64 netns)
{
	struct slot *pod = bpf_map_lookup_elem(&slots, &slot);

	if (!pod || (pod->flags & (SLOT_ENABLED | SLOT_RELEASED)) != SLOT_ENABLED)
		return 0;
	return find_occupant(slot, netns);
}

/* What the namespace may call directly under this name; 0 when it may not. */
static __always_inline struct verdict *find_verdict(__u64 netns, const struct endpoint *to)
{
	struct verdict_key key = {.netns = netns, .to = *to};

	return bpf_map_lookup_elem(&verdicts, &key);
}

/* Whether the pod has its share of flows, and `more`. */
static __always_inline int has_its_share(const struct occupant *caller, __s32 more)
{
	if (*(volatile const __s32 *)&caller->flows < FLOWS_OF_POD_MAX + more)
		return 0;
	count(COUNT_DIRECT_POD_FULL);
	return 1;
}

/* One of the verdict's destinations. */
static __always_inline struct backend *draw_backend(struct verdict *verdict)
{
	__u32 draw = 0;
	int i;

	if (verdict->draws > 1)
		draw = bpf_get_prandom_u32() % verdict->draws;
#pragma unroll
	for (i = 0; i < BACKENDS_MAX; i++)
		if (draw < verdict->backends[i].until)
			return &verdict->backends[i];
	return 0;
}

/* A socket may connect again: what it called before must not be shown, nor believed. */
static __always_inline void forget_called(struct bpf_sock *sk)
{
	bpf_sk_storage_delete(&called, sk);
}

static __always_inline int remember_called(struct bpf_sock *sk, const struct endpoint *service,
					   const struct verdict *verdict,
					   const struct backend *backend)
{
	struct called *stored =
		bpf_sk_storage_get(&called, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!stored) {
		count(COUNT_DIRECT_STORAGE_FAILED);
		return 0;
	}
	stored->service = *service;
	stored->source = verdict->source;
	stored->slot = backend->slot;
	stored->generation = backend->generation;
	return 1;
}

/* 1: goes directly, to what `to` is then; 0: it does not. */
static __always_inline int choose_direct(struct bpf_sock *sk, struct verdict *verdict,
					 struct endpoint *to)
{
	struct backend *backend = draw_backend(verdict);

	if (!backend || !is_current(backend->slot, backend->generation))
		return 0;
	if (same_endpoint(to, &backend->to)) {
		forget_called(sk);
		return 1;
	}
	if (!remember_called(sk, to, verdict, backend))
		return 0;
	*to = backend->to;
	return 1;
}

/* What getpeername() shows instead of the backend; 0 when nothing was rewritten. */
static __always_inline struct endpoint *called_service(struct bpf_sock_addr *ctx)
{
	struct called *stored;

	if (ctx->protocol == IPPROTO_UDP || !ctx->sk)
		return 0;
	stored = bpf_sk_storage_get(&called, ctx->sk, 0, 0);
	return stored ? &stored->service : 0;
}

/* At the destination: whether this SYN is one that was let through, and has not been yet. */
static __always_inline int is_direct(__u32 slot, const struct flow_key *key)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	return flow && flow->slot == slot && !(flow->flags & FLOW_USED) &&
	       is_current(slot, flow->generation);
}

#endif
