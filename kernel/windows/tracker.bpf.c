// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Remembers which TCP connections of some addresses had a packet: a netfilter hook (BPF_PROG_TYPE_NETFILTER, kernel 6.4)
// behind conntrack. Offsets are relocated at load (CO-RE).
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "tracker.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sk_buff {
  unsigned long _nfct;
};
struct bpf_nf_ctx {
  struct sk_buff *skb;
};
union nf_inet_addr {
  __u32 all[4];
};
union nf_conntrack_man_proto {
  __be16 all;
};
struct nf_conntrack_man {
  union nf_inet_addr u3;
  union nf_conntrack_man_proto u;
  __u16 l3num;
};
struct nf_conntrack_tuple {
  struct nf_conntrack_man src;
  struct {
    union nf_inet_addr u3;
    union {
      __be16 all;
    } u;
    __u8 protonum;
  } dst;
};
struct nf_conntrack_tuple_hash {
  struct nf_conntrack_tuple tuple;
};
struct nf_conntrack_zone {
  __u16 id;
};
struct nf_conn {
  struct nf_conntrack_zone zone;
  struct nf_conntrack_tuple_hash tuplehash[2];
};
#pragma clang attribute pop

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, TRACKED_CONNECTIONS);
  __type(key, struct tracked_connection);
  __type(value, struct tracked_tuple);  // of the reply
} connections SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, TRACKED_PLACES);
  __type(key, struct tracked_place);
  __type(value, __u32);
} places SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct tracking);
} state SEC(".maps");

enum { ACCEPT = 1, TCP = 6, VERSION4 = 2 /* AF_INET */ };

static __always_inline void copy(struct tracked_tuple *to, const struct nf_conntrack_tuple *from) {
  bpf_core_read(to->source, sizeof to->source, &from->src.u3);
  bpf_core_read(to->destination, sizeof to->destination, &from->dst.u3);
  bpf_core_read(&to->source_port, sizeof to->source_port, &from->src.u);
  bpf_core_read(&to->destination_port, sizeof to->destination_port, &from->dst.u);
}

static __always_inline int is_watched(const struct tracked_connection *connection, const struct tracked_tuple *tuple) {
  struct tracked_place place = {.zone = connection->zone, .version = connection->version};
  for (int i = 0; i < 4; ++i) place.address[i] = tuple->source[i];
  return bpf_map_lookup_elem(&places, &place) != 0;
}

SEC("netfilter")
int track(struct bpf_nf_ctx *context) {
  const __u32 zero = 0;
  struct tracking *tracking = bpf_map_lookup_elem(&state, &zero);
  const struct nf_conn *entry = (void *)(context->skb->_nfct & ~7UL);
  if (!tracking || !entry || BPF_CORE_READ(entry, tuplehash[0].tuple.dst.protonum) != TCP) return ACCEPT;

  struct tracked_connection connection = {};
  struct tracked_tuple reply = {};
  copy(&connection.original, &entry->tuplehash[0].tuple);
  copy(&reply, &entry->tuplehash[1].tuple);
  connection.version = BPF_CORE_READ(entry, tuplehash[0].tuple.src.l3num) == VERSION4 ? 4 : 6;
  if (bpf_core_field_exists(entry->zone)) connection.zone = BPF_CORE_READ(entry, zone.id);
  if (!tracking->everything && !is_watched(&connection, &connection.original) && !is_watched(&connection, &reply))
    return ACCEPT;
  if (bpf_map_lookup_elem(&connections, &connection)) return ACCEPT;
  if (bpf_map_update_elem(&connections, &connection, &reply, BPF_ANY) != 0) tracking->overrun = 1;
  return ACCEPT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
