/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * connect() of an enrolled pod's TCP sockets: the socket gets a mark, and by that mark every destination
 * is local to the pod, where steer.h finds it. Addresses stay as the application wrote them.
 */
#ifndef AMBIT_CONNECT_H
#define AMBIT_CONNECT_H

#include "direct.h"

enum { REFUSE = 0, ALLOW = 1, REWRITTEN = 2 };

/* Changes the bits that are ours and leaves the others: an application may use marks of its own. */
static __always_inline int set_mark(struct bpf_sock_addr *ctx, __u32 old, __u32 bits)
{
	__u32 mark = (old & ~MARK_MASK) | bits;

	if (mark == old || !bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
		return ALLOW;
	count(COUNT_REFUSED_MARK);
	return REFUSE;
}

/* A socket may connect again elsewhere: a mark of an earlier connect() must not stay. */
static __always_inline int unmark(struct bpf_sock_addr *ctx, struct bpf_sock *sk)
{
	count(COUNT_LOCAL);
	forget_called(sk);
	return (sk->mark & MARK_MASK) == CAPTURE_MARK ? set_mark(ctx, sk->mark, 0) : ALLOW;
}

/* Fails at once, with EPERM, what nobody would accept: a SYN would be retried for minutes. */
static __always_inline int somebody_listens(__u32 slot)
{
	__u32 zero = 0, index = slot * ROLES + ROLE_OUTBOUND;
	__u64 *until = bpf_map_lookup_elem(&lease, &zero);
	struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &index);

	if (!listener) {
		count(COUNT_REFUSED_NO_LISTENER);
		return 0;
	}
	bpf_sk_release(listener);
	if (until && *until && *until < bpf_ktime_get_coarse_ns()) {
		count(COUNT_REFUSED_LEASE);
		return 0;
	}
	return 1;
}

/* A socket bound to a device would not be routed to lo (SO_BINDTODEVICE needs no privilege). */
static __always_inline int clear_device(struct bpf_sock_addr *ctx, struct bpf_sock *sk)
{
	char none[1] = {0};

	if (!sk->bound_dev_if)
		return 1;
	if (bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, none, sizeof(none))) {
		count(COUNT_REFUSED_DEVICE);
		return 0;
	}
	count(COUNT_DEVICE_CLEARED);
	return 1;
}

static __always_inline int is_proxy(void)
{
	__u64 cgroup = bpf_get_current_cgroup_id();

	return bpf_map_lookup_elem(&proxies, &cgroup) != 0;
}

/* 1: goes on to what `to` is then, 0: does not go directly; -1: refused. Of enrolled pods that stay. */
static __always_inline int connect_directly(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					    __u64 netns, struct endpoint *to)
{
	struct verdict *verdict = find_verdict(netns, to);
	struct occupant *caller = verdict ? find_caller(verdict->source, netns) : 0;

	if (!caller || has_its_share(caller, 0))
		return 0;
	if (!somebody_listens(verdict->source))
		return -1;
	if (!choose_direct(sk, verdict, to))
		return 0;
	count(COUNT_DIRECT_CHOSEN);
	return set_mark(ctx, sk->mark, 0) ? 1 : -1;
}

/* More than ALLOW: `to` is another one now. */
static __always_inline int connect_tcp(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct bpf_sock *sk = ctx->sk;
	struct slot *pod;
	__u32 slot;
	int direct;

	/* First, being what happens most where it happens: ztunnel itself calls nothing that a verdict names. */
	direct = sk ? connect_directly(ctx, sk, netns, to) : 0;
	if (direct)
		return direct > 0 ? REWRITTEN : REFUSE;
	pod = find_slot(netns, &slot);
	if (!pod)
		return ALLOW;
	if (!sk)
		return REFUSE;
	if (is_proxy())
		/* The application answers a client's address: tcp_fwmark_accept keeps that on lo. */
		return is_own(slot, &to->ip) ? set_mark(ctx, sk->mark, CAPTURE_MARK) : ALLOW;
	/* The slot's flags alone begin and end capture: out, in, and with passes for what ztunnel delivers. */
	if (!(pod->flags & SLOT_ENABLED))
		return ALLOW;
	if ((pod->flags & SLOT_RELEASED) || is_loopback(&to->ip) || is_link_local(&to->ip) ||
	    is_own(slot, &to->ip))
		return unmark(ctx, sk);
	if (!somebody_listens(slot))
		return REFUSE;
	if (!clear_device(ctx, sk))
		return REFUSE;
	forget_called(sk);
	count(COUNT_CAPTURED);
	return set_mark(ctx, sk->mark, CAPTURE_MARK);
}

static __always_inline int is_tcp(struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MPTCP;
}

#endif
