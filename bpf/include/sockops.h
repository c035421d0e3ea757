/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Passes: when ztunnel connects to the application of a pod, from the client's address, or kubelet to probe it,
 * exactly that connection may reach the application past steer.h. A pass is written before the SYN leaves and
 * works once: it goes when the application's side is established, or when the socket that opened it closes.
 */
#ifndef AMBIT_SOCKOPS_H
#define AMBIT_SOCKOPS_H

#include "state.h"

static __always_inline void local_address(struct bpf_sock_ops *ctx, struct address *to)
{
	if (ctx->family == AF_INET)
		return from_ipv4(to, read_field(ctx->local_ip4));
	to->word[0] = read_field(ctx->local_ip6[0]);
	to->word[1] = read_field(ctx->local_ip6[1]);
	to->word[2] = read_field(ctx->local_ip6[2]);
	to->word[3] = read_field(ctx->local_ip6[3]);
}

static __always_inline void remote_address(struct bpf_sock_ops *ctx, struct address *to)
{
	if (ctx->family == AF_INET)
		return from_ipv4(to, read_field(ctx->remote_ip4));
	to->word[0] = read_field(ctx->remote_ip6[0]);
	to->word[1] = read_field(ctx->remote_ip6[1]);
	to->word[2] = read_field(ctx->remote_ip6[2]);
	to->word[3] = read_field(ctx->remote_ip6[3]);
}

/* local_port is in host order; remote_port in network order, in the upper half. */
static __always_inline __be16 local_port(struct bpf_sock_ops *ctx)
{
	return bpf_htons(ctx->local_port);
}

static __always_inline __be16 remote_port(struct bpf_sock_ops *ctx)
{
	return (__be16)(ctx->remote_port >> 16);
}

/* The pass of a connection that this socket opened. */
static __always_inline void outgoing(struct bpf_sock_ops *ctx, struct pass_key *key)
{
	local_address(ctx, &key->source);
	remote_address(ctx, &key->destination);
	key->source_port = local_port(ctx);
	key->destination_port = remote_port(ctx);
}

/* `map`: `passes` or `probes`. */
static __always_inline void give_pass(struct bpf_sock_ops *ctx, void *map, struct pass_key *key)
{
	struct pass pass = {.cookie = bpf_get_socket_cookie(ctx)};

	if (!is_own(key->slot, &key->destination))
		return;
	if (bpf_map_update_elem(map, key, &pass, BPF_ANY)) {
		count(COUNT_PASS_INSERT_FAILED);
		return;
	}
	count(COUNT_PASS_INSERTED);
	if (bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		count(COUNT_CALLBACK_FAILED);
}

/* Of this socket only: another one may use the same tuple by now. */
static __always_inline void take_pass_back(struct bpf_sock_ops *ctx, void *map,
					   struct pass_key *key)
{
	struct pass *pass = bpf_map_lookup_elem(map, key);

	if (!pass || pass->cookie != bpf_get_socket_cookie(ctx))
		return;
	if (!bpf_map_delete_elem(map, key))
		count(COUNT_PASS_EXPIRED);
}

/* What opens connections that get passes calls this when it connects, and when it closes. */
static __always_inline void keep_pass(struct bpf_sock_ops *ctx, void *map, struct pass_key *key)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		give_pass(ctx, map, key);
	else
		take_pass_back(ctx, map, key);
}

static __always_inline int opens_or_closes(struct bpf_sock_ops *ctx)
{
	return ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB ||
	       (ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE);
}

static __always_inline void application_accepts(struct bpf_sock_ops *ctx, __u32 slot)
{
	struct pass_key key = {.slot = slot};

	remote_address(ctx, &key.source);
	local_address(ctx, &key.destination);
	key.source_port = remote_port(ctx);
	key.destination_port = local_port(ctx);
	if (!bpf_map_delete_elem(&passes, &key) || !bpf_map_delete_elem(&probes, &key))
		count(COUNT_PASS_CONSUMED);
}

#endif
