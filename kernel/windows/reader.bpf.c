// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Reads the window state that conntrack keeps of TCP connections and shows nobody (struct ip_ct_tcp_state): the kfunc
// bpf_skb_ct_lookup (net/netfilter/nf_conntrack_bpf.c, 5.18; zones 6.10), for every slot of a map, in one run. It is run
// by BPF_PROG_TEST_RUN in a network namespace and attached to nothing. Offsets are relocated at load (CO-RE).
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "reader.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ip_ct_tcp_state {
  __u32 td_end, td_maxend, td_maxwin, td_maxack;
  __u8 td_scale, flags;
};
struct ip_ct_tcp {
  struct ip_ct_tcp_state seen[2];
};
union nf_conntrack_proto {
  struct ip_ct_tcp tcp;
};
struct nf_conn {
  unsigned long status;
  union nf_conntrack_proto proto;
};
// Only to ask whether this kernel's options have a zone.
struct bpf_ct_opts {
  __u16 ct_zone_id;
};
#pragma clang attribute pop

struct bpf_ct_opts___zoned {
  __s32 netns_id, error;
  __u8 l4proto, dir;
  __u16 ct_zone_id;
  __u8 ct_zone_dir, reserved[3];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
                                         struct bpf_ct_opts___zoned *options, __u32 options_size) __ksym;
extern void bpf_ct_release(struct nf_conn *connection) __ksym;

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, WINDOW_SLOTS);
  __type(key, __u32);
  __type(value, struct window_slot);
} slots SEC(".maps");

enum { OFFLOAD = 1UL << 14, HW_OFFLOAD = 1UL << 15 };  // IPS_*: a flow table moves its packets past conntrack

static __always_inline void copy(struct window_direction *to, const struct ip_ct_tcp_state *from) {
  to->end = from->td_end;
  to->maximum_end = from->td_maxend;
  to->maximum_window = from->td_maxwin;
  to->maximum_acknowledgement = from->td_maxack;
  to->scale = from->td_scale;
  to->flags = from->flags;
}

enum { OLD_OPTIONS = 12 };  // size without a zone

struct run {
  struct __sk_buff *skb;
};

static __always_inline int has_zones(void) { return bpf_core_field_exists(struct bpf_ct_opts, ct_zone_id); }

static __always_inline struct nf_conn *look_up(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 size,
                                               struct bpf_ct_opts___zoned *options) {
  if (has_zones()) return bpf_skb_ct_lookup(skb, tuple, size, options, sizeof *options);
  return bpf_skb_ct_lookup(skb, tuple, size, options, OLD_OPTIONS);
}

static long read_one(__u32 index, struct run *run) {
  struct window_slot *slot = bpf_map_lookup_elem(&slots, &index);
  if (!slot) return 1;
  slot->answer = WINDOW_ABSENT;
  struct bpf_ct_opts___zoned options = {.netns_id = -1, .l4proto = 6};
  if (has_zones()) {
    options.ct_zone_id = slot->zone;
    options.ct_zone_dir = 3;
  }
  struct bpf_sock_tuple tuple = {};
  struct nf_conn *connection;
  if (slot->version == 4) {
    tuple.ipv4.saddr = slot->source[0];
    tuple.ipv4.daddr = slot->destination[0];
    tuple.ipv4.sport = slot->source_port;
    tuple.ipv4.dport = slot->destination_port;
    connection = look_up(run->skb, &tuple, sizeof tuple.ipv4, &options);
  } else {
    for (int i = 0; i < 4; ++i) {
      tuple.ipv6.saddr[i] = slot->source[i];
      tuple.ipv6.daddr[i] = slot->destination[i];
    }
    tuple.ipv6.sport = slot->source_port;
    tuple.ipv6.dport = slot->destination_port;
    connection = look_up(run->skb, &tuple, sizeof tuple.ipv6, &options);
  }
  if (!connection) return 0;
  if (options.dir == 0) {
    copy(&slot->direction[0], &connection->proto.tcp.seen[0]);
    copy(&slot->direction[1], &connection->proto.tcp.seen[1]);
    slot->answer = connection->status & (OFFLOAD | HW_OFFLOAD) ? WINDOW_OFFLOADED : WINDOW_FOUND;
  }
  bpf_ct_release(connection);
  return 0;
}

// The number of slots that are set is the packet's mark. Returns whether zones other than 0 can be asked for.
SEC("tc")
int read_windows(struct __sk_buff *skb) {
  struct run run = {skb};
  __u32 count = skb->mark;
  if (count > WINDOW_SLOTS) count = WINDOW_SLOTS;
  bpf_loop(count, read_one, &run, 0);
  return has_zones();
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
