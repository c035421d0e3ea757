// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Redirection of pods' traffic into ztunnel. The programs at the node's cgroup serve all pods of the node
 * and look up which pod a socket lives in; `steer` is loaded once per pod and attached to its network
 * namespace; `proxy_sockops` is attached to ztunnel's own cgroup, `kubelet_sockops` to kubelet's, `shortcut`
 * to the node's ends of pods' links.
 */
#include "include/connect.h"
#include "include/direct_flows.h"
#include "include/dns.h"
#include "include/shortcut.h"
#include "include/sockops.h"
#include "include/steer.h"

static __always_inline void read_ipv4(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	from_ipv4(&to->ip, ctx->user_ip4);
	to->port = (__be16)ctx->user_port;
	to->pad = 0;
}

static __always_inline void read_ipv6(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	to->ip.word[0] = ctx->user_ip6[0];
	to->ip.word[1] = ctx->user_ip6[1];
	to->ip.word[2] = ctx->user_ip6[2];
	to->ip.word[3] = ctx->user_ip6[3];
	to->port = (__be16)ctx->user_port;
	to->pad = 0;
}

static __always_inline void write_ipv4(struct bpf_sock_addr *ctx, const struct endpoint *to)
{
	ctx->user_ip4 = to->ip.word[3];
	ctx->user_port = to->port;
}

static __always_inline void write_ipv6(struct bpf_sock_addr *ctx, const struct endpoint *to)
{
	ctx->user_ip6[0] = to->ip.word[0];
	ctx->user_ip6[1] = to->ip.word[1];
	ctx->user_ip6[2] = to->ip.word[2];
	ctx->user_ip6[3] = to->ip.word[3];
	ctx->user_port = to->port;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	int redirected, verdict;

	read_ipv4(ctx, &to);
	if (is_tcp(ctx)) {
		verdict = connect_tcp(ctx, &to);
		if (verdict == REWRITTEN)
			write_ipv4(ctx, &to);
		return verdict != REFUSE;
	}
	if (ctx->protocol != IPPROTO_UDP)
		return ALLOW;
	redirected = connect_udp(ctx, &to);
	if (redirected > 0)
		write_ipv4(ctx, &to);
	return redirected >= 0;
}

/* IPv6 destinations, and IPv4-mapped ones: those never reach connect4. */
SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	int redirected, verdict;

	read_ipv6(ctx, &to);
	if (is_tcp(ctx)) {
		verdict = connect_tcp(ctx, &to);
		if (verdict == REWRITTEN)
			write_ipv6(ctx, &to);
		return verdict != REFUSE;
	}
	if (ctx->protocol != IPPROTO_UDP)
		return ALLOW;
	redirected = connect_udp(ctx, &to);
	if (redirected > 0)
		write_ipv6(ctx, &to);
	return redirected >= 0;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	int redirected;

	read_ipv4(ctx, &to);
	redirected = redirect_query(ctx, &to);
	if (redirected > 0)
		write_ipv4(ctx, &to);
	return redirected >= 0;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint to;
	int redirected;

	read_ipv6(ctx, &to);
	redirected = redirect_query(ctx, &to);
	if (redirected > 0)
		write_ipv6(ctx, &to);
	return redirected >= 0;
}

static __always_inline int show_ipv4(struct bpf_sock_addr *ctx)
{
	struct endpoint from, *resolver;

	read_ipv4(ctx, &from);
	resolver = hidden_resolver(ctx, &from);
	if (resolver)
		write_ipv4(ctx, resolver);
	return ALLOW;
}

static __always_inline int show_ipv6(struct bpf_sock_addr *ctx)
{
	struct endpoint from, *resolver;

	read_ipv6(ctx, &from);
	resolver = hidden_resolver(ctx, &from);
	if (resolver)
		write_ipv6(ctx, resolver);
	return ALLOW;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return show_ipv4(ctx);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return show_ipv6(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint *service = called_service(ctx);

	if (!service)
		return show_ipv4(ctx);
	write_ipv4(ctx, service);
	return ALLOW;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint *service = called_service(ctx);

	if (!service)
		return show_ipv6(ctx);
	write_ipv6(ctx, service);
	return ALLOW;
}

static __always_inline void application_established(struct bpf_sock_ops *ctx)
{
	__u32 slot;

	if (find_pod(bpf_get_netns_cookie(ctx), &slot) && !application_accepts_direct(ctx))
		application_accepts(ctx, slot);
}

/* At the node's cgroup: applications that accept what ztunnel opened, or talk to each other. */
SEC("sockops")
int node_sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		client_connects(ctx);
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		application_established(ctx);
	else if (ctx->op == BPF_SOCK_OPS_STATE_CB)
		direct_changes(ctx);
	return 1;
}

/* At ztunnel's cgroup. */
SEC("sockops")
int proxy_sockops(struct bpf_sock_ops *ctx)
{
	struct pass_key key = {};

	if (!opens_or_closes(ctx) || !find_pod(bpf_get_netns_cookie(ctx), &key.slot))
		return 1;
	outgoing(ctx, &key);
	keep_pass(ctx, &passes, &key);
	return 1;
}

/* At kubelet's cgroup: what it opens from the node itself to a pod of the node is a probe. */
SEC("sockops")
int kubelet_sockops(struct bpf_sock_ops *ctx)
{
	struct pass_key key = {};
	__u32 *slot;

	if (!opens_or_closes(ctx) || bpf_get_netns_cookie(ctx) != settings.node_netns)
		return 1;
	outgoing(ctx, &key);
	slot = bpf_map_lookup_elem(&probe_targets, &key.destination);
	if (!slot)
		return 1;
	key.slot = *slot;
	keep_pass(ctx, &probes, &key);
	return 1;
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	return ctx->protocol == IPPROTO_TCP ? steer_tcp(ctx) : SK_PASS;
}

SEC("tc")
int shortcut(struct __sk_buff *ctx)
{
	return hand_over(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
