/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DNS over UDP: queries to port 53 go to the DNS proxy on the pod's loopback, and what the application
 * sees as the sender or the peer is the resolver it asked. One resolver is remembered per socket, the last:
 * a resolver library that asks several on one unconnected socket accepts an answer from any of them.
 */
#ifndef AMBIT_DNS_H
#define AMBIT_DNS_H

#include "connect.h"

static __always_inline void dns_proxy(struct address *to, int ipv4)
{
	if (ipv4)
		return from_ipv4(to, bpf_htonl(0x7f000001));
	to->word[0] = to->word[1] = to->word[2] = 0;
	to->word[3] = bpf_htonl(1);
}

/*
 * Rewrites `to` when it is a query to be captured: 1 then, 0 when it is not, -1 when it is but the
 * resolver cannot be remembered.
 */
static __always_inline int redirect_query(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	struct endpoint *resolver;
	struct slot *pod;
	__u32 slot;

	if (to->port != bpf_htons(DNS_PORT) || is_loopback(&to->ip))
		return 0;
	pod = find_slot(bpf_get_netns_cookie(ctx), &slot);
	if (!pod || !(pod->flags & SLOT_DNS) || is_proxy() || is_own(slot, &to->ip))
		return 0;
	if (!ctx->sk)
		return -1;
	resolver = bpf_sk_storage_get(&resolvers, ctx->sk, to, BPF_SK_STORAGE_GET_F_CREATE);
	if (!resolver) {
		count(COUNT_DNS_STORAGE_FAILED);
		return -1;
	}
	*resolver = *to;
	dns_proxy(&to->ip, is_ipv4(&to->ip));
	to->port = bpf_htons(DNS_PROXY_PORT);
	count(COUNT_DNS_REDIRECTED);
	return 1;
}

/* connect() of a UDP socket: remembers the resolver, or forgets the one of an earlier connect(). */
static __always_inline int connect_udp(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	int redirected = redirect_query(ctx, to);

	if (!redirected && ctx->sk)
		bpf_sk_storage_delete(&resolvers, ctx->sk);
	return redirected;
}

/* The resolver to be shown instead of the DNS proxy's own address; 0 when it is somebody else's. */
static __always_inline struct endpoint *hidden_resolver(struct bpf_sock_addr *ctx,
							const struct endpoint *from)
{
	struct address proxy;

	if (from->port != bpf_htons(DNS_PROXY_PORT) || !ctx->sk)
		return 0;
	dns_proxy(&proxy, is_ipv4(&from->ip));
	if (!same_address(&proxy, &from->ip))
		return 0;
	return bpf_sk_storage_get(&resolvers, ctx->sk, 0, 0);
}

#endif
