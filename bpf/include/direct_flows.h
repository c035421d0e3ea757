/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a direct connection as its two sockets tell it: the client's SYN enters it in `flows`, the
 * destination's socket uses that up, and when it closes, what it carried goes to user space. What the client
 * does in between means nothing: it may be an attacker, who keeps the other side from hearing of its end.
 * Where packets take a shortcut the entry is there until both sockets are closed, for the last of them, too.
 */
#ifndef AMBIT_DIRECT_FLOWS_H
#define AMBIT_DIRECT_FLOWS_H

#include "direct.h"
#include "sockops.h"

static __always_inline void flow_from_here(struct bpf_sock_ops *ctx, struct flow_key *key)
{
	local_address(ctx, &key->source);
	remote_address(ctx, &key->destination);
	key->source_port = local_port(ctx);
	key->destination_port = remote_port(ctx);
}

static __always_inline void flow_to_here(struct bpf_sock_ops *ctx, struct flow_key *key)
{
	remote_address(ctx, &key->source);
	local_address(ctx, &key->destination);
	key->source_port = remote_port(ctx);
	key->destination_port = local_port(ctx);
}

static __always_inline int is_captured(struct bpf_sock *sk)
{
	return (sk->mark & MARK_MASK) == CAPTURE_MARK;
}

static __always_inline void watch_state(struct bpf_sock_ops *ctx)
{
	if (bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		count(COUNT_CALLBACK_FAILED);
}

/*
 * By which verdict this socket goes, which slot and generation it named, and who calls. 0 when there is
 * none, or the pod has left.
 */
static __always_inline struct occupant *find_permission(struct bpf_sock *sk,
							const struct flow_key *key,
							struct flow *flow, __u32 *source)
{
	struct endpoint to = {.ip = key->destination, .port = key->destination_port};
	struct called *stored = bpf_sk_storage_get(&called, sk, 0, 0);
	struct verdict *verdict;
	struct backend *backend;

	if (stored) {
		flow->service = stored->service;
		flow->slot = stored->slot;
		flow->generation = stored->generation;
		*source = stored->source;
		return find_caller(*source, flow->netns);
	}
	verdict = find_verdict(flow->netns, &to);
	backend = verdict ? draw_backend(verdict) : 0;
	if (!backend || !same_endpoint(&to, &backend->to))
		return 0;
	flow->slot = backend->slot;
	flow->generation = backend->generation;
	*source = verdict->source;
	return find_caller(*source, flow->netns);
}

/* Callbacks of several sockets set flags, each its own. */
static __always_inline void set_flag(struct flow *flow, __u32 flag)
{
	if (!(flow->flags & flag))
		__sync_fetch_and_add((__u32 *)&flow->flags, flag);
}

/* From link to link where both pods' are fit for it; decided once, for all of a connection. */
static __always_inline void choose_way(struct flow *flow, const struct occupant *source)
{
	__u32 slot = flow->slot;
	struct occupant *destination = bpf_map_lookup_elem(&occupants, &slot);

	if (!destination || !destination->link || !source->link)
		return;
	flow->source_link = source->link;
	flow->link = destination->link;
}

/* 0: there is no room. One that it replaces is of the same address, and with that of the same pod. */
static __always_inline int enter_flow(const struct flow_key *key, struct flow *flow,
				      struct occupant *source)
{
	struct flow *before;

	if (!bpf_map_update_elem(&flows, key, flow, BPF_NOEXIST)) {
		__sync_fetch_and_add(&source->flows, 1);
		return 1;
	}
	before = bpf_map_lookup_elem(&flows, key);
	if (before && before->flags && !(before->flags & FLOW_CLOSED))
		flow->flags = FLOW_REPLACED;
	return before && !bpf_map_update_elem(&flows, key, flow, BPF_EXIST);
}

/* False when it was gone already. `flow` is what the map has. */
static __always_inline int leave_flow(const struct flow_key *key, const struct flow *flow)
{
	__u32 slot = flow->source;
	__u64 netns = flow->netns;
	struct occupant *source;

	if (bpf_map_delete_elem(&flows, key))
		return 0;
	source = find_occupant(slot, netns);
	if (source)
		__sync_fetch_and_add(&source->flows, -1);
	return 1;
}

/* No room: the SYN goes to ztunnel, and so do later ones, until it writes new verdicts. */
static __always_inline void give_up_direct(__u32 slot)
{
	__u32 *generation = bpf_map_lookup_elem(&generations, &slot);

	count(COUNT_DIRECT_INSERT_FAILED);
	if (generation)
		__sync_fetch_and_add(generation, 1);
}

/* TCP_CONNECT_CB of any socket; ztunnel's own never call what a verdict names. */
static __always_inline void client_connects(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct occupant *source;
	struct flow_key key = {};
	struct flow flow = {};
	__u32 slot;

	if (!sk || is_captured(sk))
		return;
	flow.netns = bpf_get_netns_cookie(ctx);
	flow_from_here(ctx, &key);
	source = find_permission(sk, &key, &flow, &slot);
	if (!source)
		return;
	if (!is_current(flow.slot, flow.generation)) {
		count(COUNT_DIRECT_STALE);
		return;
	}
	/* IP_TRANSPARENT binds any address; the verdict is for this pod's. */
	if (!is_occupants(slot, source, &key.source)) {
		count(COUNT_DIRECT_SPOOFED);
		return;
	}
	if (has_its_share(source, FLOWS_AT_ONCE_MAX))
		return;
	flow.cookie = bpf_get_socket_cookie(ctx);
	flow.started_ns = bpf_ktime_get_ns();
	flow.source = slot;
	choose_way(&flow, source);
	if (!enter_flow(&key, &flow, source)) {
		give_up_direct(flow.slot);
		return;
	}
	count(COUNT_DIRECT_STARTED);
	watch_state(ctx);
}

/* What this socket is the destination's end of. */
static __always_inline struct flow *find_received(struct bpf_sock_ops *ctx, struct flow_key *key)
{
	flow_to_here(ctx, key);
	return bpf_map_lookup_elem(&flows, key);
}

/* PASSIVE_ESTABLISHED: 1 when the connection that the application gets came directly. */
static __always_inline int application_accepts_direct(struct bpf_sock_ops *ctx)
{
	struct flow_key key = {};
	struct flow *flow = find_received(ctx, &key);

	if (!flow)
		return 0;
	set_flag(flow, FLOW_USED);
	watch_state(ctx);
	return 1;
}

/* What this socket has begun, not another one with the same ports. */
static __always_inline struct flow *find_begun(struct bpf_sock_ops *ctx, struct flow_key *key)
{
	struct flow *flow;

	flow_from_here(ctx, key);
	flow = bpf_map_lookup_elem(&flows, key);
	return flow && flow->cookie == bpf_get_socket_cookie(ctx) ? flow : 0;
}

/* Only while the destination has no socket for it. */
static __always_inline void client_fails(struct bpf_sock_ops *ctx)
{
	struct flow_key key = {};
	struct flow *flow = find_begun(ctx, &key);

	if (!flow || flow->flags)
		return;
	if (leave_flow(&key, flow))
		count(COUNT_DIRECT_FAILED);
}

static __always_inline void client_closes(struct bpf_sock_ops *ctx)
{
	struct flow_key key = {};
	struct flow *flow = find_begun(ctx, &key);

	if (!flow)
		return;
	set_flag(flow, FLOW_LEFT);
	if (flow->flags & FLOW_CLOSED)
		leave_flow(&key, flow);
}

/* The client has yet to close: its last packets, and what ends it, take the same way as those before. */
static __always_inline int is_awaited(struct flow *flow)
{
	if (!flow->link || (flow->flags & FLOW_REPLACED))
		return 0;
	set_flag(flow, FLOW_CLOSED);
	return !(flow->flags & FLOW_LEFT);
}

static __always_inline void tell_ended(struct bpf_sock_ops *ctx, const struct flow_key *key,
				       const struct flow *flow)
{
	struct ended_flow *record = bpf_ringbuf_reserve(&ended, sizeof(*record), 0);

	if (!record) {
		count(COUNT_DIRECT_UNREPORTED);
		return;
	}
	record->flow = *flow;
	record->key = *key;
	record->state = ctx->args[0];
	record->ended_ns = bpf_ktime_get_ns();
	record->received = ctx->bytes_received;
	record->acked = ctx->bytes_acked;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* 0: it is no destination's socket. */
static __always_inline int application_closes(struct bpf_sock_ops *ctx)
{
	struct flow_key key = {};
	struct flow *flow = find_received(ctx, &key);

	if (!flow)
		return 0;
	tell_ended(ctx, &key, flow);
	if (is_awaited(flow) || leave_flow(&key, flow))
		count(COUNT_DIRECT_ENDED);
	return 1;
}

/* STATE_CB of the sockets that are watched, and of ztunnel's own, which bear the mark. */
static __always_inline void direct_changes(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (ctx->args[0] == BPF_TCP_SYN_SENT) {
		if (!sk || is_captured(sk))
			return;
		if (ctx->args[1] == BPF_TCP_CLOSE)
			client_fails(ctx);
		return;
	}
	if (ctx->args[1] == BPF_TCP_CLOSE && !application_closes(ctx) && sk && !is_captured(sk))
		client_closes(ctx);
}

#endif
