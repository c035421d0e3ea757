/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a pod sends in direct connections is handed over, where it arrives on the node, to the other
 * pod's link, past the node's bridge, routes and filters. All but the SYN: a connection that these
 * would not let begin does not begin. A node that tracks connections knows it as one that nobody
 * has answered, and forgets it soon, for it sees no later packet; so a connection that has begun
 * this way must end this way, too.
 */
#ifndef AMBIT_SHORTCUT_H
#define AMBIT_SHORTCUT_H

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include "direct.h"

/* TCX_NEXT of newer headers: on to the next program, and then the way that packets always went. */
#define GO_ON (-1)
/* Of an IPv4 header: more fragments, and where this one belongs. */
#define FRAGMENT_MASK 0x3fff
/* Of an IPv4 header without options, in words. */
#define IPV4_WORDS 5

static __always_inline int read_ports(const struct tcphdr *tcp, const void *end,
				      struct flow_key *key)
{
	if ((const void *)(tcp + 1) > end || (tcp->syn && !tcp->ack))
		return 0;
	key->source_port = tcp->source;
	key->destination_port = tcp->dest;
	return 1;
}

static __always_inline void from_ipv6(struct address *to, const struct in6_addr *ip)
{
	to->word[0] = ip->in6_u.u6_addr32[0];
	to->word[1] = ip->in6_u.u6_addr32[1];
	to->word[2] = ip->in6_u.u6_addr32[2];
	to->word[3] = ip->in6_u.u6_addr32[3];
}

/* 0: no whole TCP segment that may be handed over. */
static __always_inline int read_segment(struct __sk_buff *ctx, struct flow_key *key)
{
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *ethernet = (const void *)(long)ctx->data;
	const struct iphdr *ipv4 = (const void *)(ethernet + 1);
	const struct ipv6hdr *ipv6 = (const void *)(ethernet + 1);

	if ((const void *)(ipv4 + 1) > end || ctx->vlan_present)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		if (ipv4->ihl != IPV4_WORDS || ipv4->protocol != IPPROTO_TCP ||
		    (ipv4->frag_off & bpf_htons(FRAGMENT_MASK)))
			return 0;
		from_ipv4(&key->source, ipv4->saddr);
		from_ipv4(&key->destination, ipv4->daddr);
		return read_ports((const void *)(ipv4 + 1), end, key);
	}
	if (ethernet->h_proto != bpf_htons(ETH_P_IPV6) || (const void *)(ipv6 + 1) > end ||
	    ipv6->nexthdr != IPPROTO_TCP)
		return 0;
	from_ipv6(&key->source, &ipv6->saddr);
	from_ipv6(&key->destination, &ipv6->daddr);
	return read_ports((const void *)(ipv6 + 1), end, key);
}

static __always_inline void turn_round(struct flow_key *key)
{
	struct flow_key there = *key;

	key->source = there.destination;
	key->destination = there.source;
	key->source_port = there.destination_port;
	key->destination_port = there.source_port;
}

/* Index of the node's end of the link that it goes to; 0: none, or not by the link it came from. */
static __always_inline __u32 find_link(__u32 came_from, struct flow_key *key)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	if (flow)
		return flow->source_link == came_from ? flow->link : 0;
	turn_round(key);
	flow = bpf_map_lookup_elem(&flows, key);
	return flow && flow->link == came_from ? flow->source_link : 0;
}

static __always_inline int hand_over(struct __sk_buff *ctx)
{
	struct flow_key key = {};
	__u32 link;

	if (!read_segment(ctx, &key))
		return GO_ON;
	link = find_link(ctx->ifindex, &key);
	/* On a bridge it is addressed to the other pod, for which it is not the node's. */
	if (!link || bpf_skb_change_type(ctx, PACKET_HOST))
		return GO_ON;
	count(COUNT_DIRECT_SHORTCUT);
	return bpf_redirect_peer(link, 0);
}

#endif
