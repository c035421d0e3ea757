/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which socket of a pod's namespace gets a new TCP connection: ztunnel's outbound listener when the pod
 * opened it, its HBONE or plaintext listener when somebody else did, and the application itself for calls
 * within the pod, probes, and what ztunnel delivers. A missing listener drops: never past ztunnel.
 */
#ifndef AMBIT_STEER_H
#define AMBIT_STEER_H

#include "direct.h"

static __always_inline void lookup_addresses(struct bpf_sk_lookup *ctx, struct address *local,
					     struct address *remote)
{
	if (ctx->family == AF_INET) {
		from_ipv4(local, read_field(ctx->local_ip4));
		from_ipv4(remote, read_field(ctx->remote_ip4));
		return;
	}
	local->word[0] = read_field(ctx->local_ip6[0]);
	local->word[1] = read_field(ctx->local_ip6[1]);
	local->word[2] = read_field(ctx->local_ip6[2]);
	local->word[3] = read_field(ctx->local_ip6[3]);
	remote->word[0] = read_field(ctx->remote_ip6[0]);
	remote->word[1] = read_field(ctx->remote_ip6[1]);
	remote->word[2] = read_field(ctx->remote_ip6[2]);
	remote->word[3] = read_field(ctx->remote_ip6[3]);
}

/* 169.254.7.127 and fd16:9254:7127:1337:ffff:ffff:ffff:ffff: what probes are translated to come from. */
static __always_inline int is_probe(const struct address *ip)
{
	if (is_ipv4(ip))
		return ip->word[3] == bpf_htonl(0xa9fe077f);
	return ip->word[0] == bpf_htonl(0xfd169254) && ip->word[1] == bpf_htonl(0x71271337) &&
	       ip->word[2] == 0xffffffff && ip->word[3] == 0xffffffff;
}

static __always_inline int comes_directly(struct bpf_sk_lookup *ctx, const struct address *local,
					  const struct address *remote)
{
	struct flow_key key = {
		.source = *remote,
		.destination = *local,
		.source_port = (__be16)ctx->remote_port,
		.destination_port = bpf_htons(ctx->local_port),
	};

	return is_direct(settings.slot, &key);
}

/* `map`: `passes` or `probes`. */
static __always_inline int has_pass(struct bpf_sk_lookup *ctx, void *map,
				    const struct address *local, const struct address *remote)
{
	struct pass_key key = {
		.source = *remote,
		.destination = *local,
		.source_port = (__be16)ctx->remote_port,
		.destination_port = bpf_htons(ctx->local_port),
		.slot = settings.slot,
	};

	return bpf_map_lookup_elem(map, &key) != 0;
}

static __always_inline int give_to(struct bpf_sk_lookup *ctx, __u32 role)
{
	__u32 index = settings.slot * ROLES + role;
	struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &index);
	long error;

	if (!listener) {
		count(COUNT_DROPPED_NO_LISTENER);
		return SK_DROP;
	}
	error = bpf_sk_assign(ctx, listener, 0);
	bpf_sk_release(listener);
	if (error) {
		count(COUNT_DROPPED_ASSIGN);
		return SK_DROP;
	}
	count(COUNT_TO_OUTBOUND + role);
	return SK_PASS;
}

static __always_inline int steer_tcp(struct bpf_sk_lookup *ctx)
{
	struct address local, remote;
	__u32 slot = settings.slot;
	struct slot *pod = bpf_map_lookup_elem(&slots, &slot);

	if (!pod || !(pod->flags & SLOT_ENABLED))
		return SK_PASS;
	lookup_addresses(ctx, &local, &remote);
	if (is_loopback(&local) || same_address(&local, &remote))
		return SK_PASS;
	if (comes_directly(ctx, &local, &remote)) {
		count(COUNT_DIRECT_PASSED);
		return SK_PASS;
	}
	if (is_own(slot, &remote)) {
		if (is_own(slot, &local))
			return SK_PASS;
		if (ctx->local_port == DNS_PORT && (pod->flags & SLOT_DNS))
			return give_to(ctx, ROLE_DNS);
		return give_to(ctx, ROLE_OUTBOUND);
	}
	if ((pod->flags & SLOT_RELEASED) && ctx->local_port == HBONE_PORT)
		return give_to(ctx, ROLE_HBONE);
	if (!(pod->flags & SLOT_INBOUND))
		return SK_PASS;
	if (is_probe(&remote) || has_pass(ctx, &probes, &local, &remote)) {
		count(COUNT_PASSED_PROBE);
		return SK_PASS;
	}
	if (has_pass(ctx, &passes, &local, &remote)) {
		count(COUNT_PASSED_PROXY);
		return SK_PASS;
	}
	return give_to(ctx, ctx->local_port == HBONE_PORT ? ROLE_HBONE : ROLE_PLAINTEXT);
}

_Static_assert(COUNT_TO_PLAINTEXT - COUNT_TO_OUTBOUND == ROLE_PLAINTEXT, "counters follow roles");
_Static_assert(COUNT_TO_DNS - COUNT_TO_OUTBOUND == ROLE_DNS, "counters follow roles");

#endif
