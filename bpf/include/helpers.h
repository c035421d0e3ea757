/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The helpers of linux/bpf.h that these programs call, by number, and the few macros that name sections
 * and maps. Declared here so that a build needs clang and the kernel's UAPI headers, nothing else.
 */
#ifndef AMBIT_HELPERS_H
#define AMBIT_HELPERS_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

/* How map attributes are written so that they can be read from BTF. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

/* Reads a context's field where it is written: merged with others' offsets the verifier refuses it. */
#define read_field(field)                                                                          \
	({                                                                                         \
		__u32 value_ = (field);                                                            \
		asm volatile("" : "+r"(value_));                                                   \
		value_;                                                                            \
	})

#define bpf_htons(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define bpf_ntohs(x) ((__u16)__builtin_bswap16((__be16)(x)))
#define bpf_htonl(x) ((__be32)__builtin_bswap32((__u32)(x)))

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value,
				   __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
/* As of the last tick, some milliseconds ago: without asking the clock. */
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;
static __u64 (*bpf_get_netns_cookie)(void *ctx) = (void *)BPF_FUNC_get_netns_cookie;
static __u64 (*bpf_get_current_cgroup_id)(void) = (void *)BPF_FUNC_get_current_cgroup_id;
static long (*bpf_setsockopt)(void *ctx, int level, int name, void *value,
			      int length) = (void *)BPF_FUNC_setsockopt;
static long (*bpf_sock_ops_cb_flags_set)(struct bpf_sock_ops *ctx,
					 int flags) = (void *)BPF_FUNC_sock_ops_cb_flags_set;
static long (*bpf_sk_release)(void *sk) = (void *)BPF_FUNC_sk_release;
static long (*bpf_sk_assign)(void *ctx, void *sk, __u64 flags) = (void *)BPF_FUNC_sk_assign;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value,
				   __u64 flags) = (void *)BPF_FUNC_sk_storage_get;
static long (*bpf_sk_storage_delete)(void *map, void *sk) = (void *)BPF_FUNC_sk_storage_delete;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 bytes,
				     __u64 flags) = (void *)BPF_FUNC_ringbuf_reserve;
static void (*bpf_ringbuf_submit)(void *record, __u64 flags) = (void *)BPF_FUNC_ringbuf_submit;
static long (*bpf_skb_change_type)(struct __sk_buff *ctx,
				   __u32 type) = (void *)BPF_FUNC_skb_change_type;
static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect_peer;

#endif
