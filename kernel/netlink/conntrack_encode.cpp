#include "kernel/netlink/conntrack_encode.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "kernel/netlink/attributes.h"

namespace sami::netlink {

namespace {

// Bits of CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS (net/netfilter/nf_conntrack_netlink.c).
constexpr std::uint32_t kFilterSource = 1, kFilterDestination = 2;

void put_address(AttributeWriter& writer, std::uint16_t type4, std::uint16_t type6, const IpAddress& address) {
  const bool version4 = address.family == AF_INET;
  writer.bytes(version4 ? type4 : type6, Bytes(address.octets.data(), version4 ? 4 : 16));
}

void put_protocol(AttributeWriter& writer, const ConntrackTuple& tuple) {
  writer.u8(CTA_PROTO_NUM, tuple.protocol);
  if (is_icmp(tuple.protocol)) {
    const bool version6 = tuple.source.family == AF_INET6;
    writer.be16(version6 ? CTA_PROTO_ICMPV6_ID : CTA_PROTO_ICMP_ID, tuple.source_port);
    writer.u8(version6 ? CTA_PROTO_ICMPV6_TYPE : CTA_PROTO_ICMP_TYPE,
              static_cast<std::uint8_t>(tuple.destination_port >> 8));
    writer.u8(version6 ? CTA_PROTO_ICMPV6_CODE : CTA_PROTO_ICMP_CODE,
              static_cast<std::uint8_t>(tuple.destination_port));
  } else {
    writer.be16(CTA_PROTO_SRC_PORT, tuple.source_port);
    writer.be16(CTA_PROTO_DST_PORT, tuple.destination_port);
  }
}

void put_tuple(AttributeWriter& writer, std::uint16_t type, const ConntrackTuple& tuple) {
  writer.nest(type, [&] {
    writer.nest(CTA_TUPLE_IP, [&] {
      put_address(writer, CTA_IP_V4_SRC, CTA_IP_V6_SRC, tuple.source);
      put_address(writer, CTA_IP_V4_DST, CTA_IP_V6_DST, tuple.destination);
    });
    writer.nest(CTA_TUPLE_PROTO, [&] { put_protocol(writer, tuple); });
  });
}

void put_zone(AttributeWriter& writer, std::uint16_t zone) {
  if (zone != 0) writer.be16(CTA_ZONE, zone);
}

// CTA_NAT_SRC or CTA_NAT_DST: exactly this address and port (ICMP: id).
void put_nat(AttributeWriter& writer, std::uint16_t type, const IpAddress& address, std::uint16_t port) {
  writer.nest(type, [&] {
    put_address(writer, CTA_NAT_V4_MINIP, CTA_NAT_V6_MINIP, address);
    put_address(writer, CTA_NAT_V4_MAXIP, CTA_NAT_V6_MAXIP, address);
    writer.nest(CTA_NAT_PROTO, [&] {
      writer.be16(CTA_PROTONAT_PORT_MIN, port);
      writer.be16(CTA_PROTONAT_PORT_MAX, port);
    });
  });
}

void put_translation(AttributeWriter& writer, const ConntrackEntry& entry) {
  const ConntrackTuple& original = entry.original;
  const ConntrackTuple& reply = entry.reply;
  // The reply is sent to the translated source, and comes from the translated destination.
  const bool icmp = is_icmp(original.protocol);
  const std::uint16_t source_port = icmp ? reply.source_port : reply.destination_port;
  const std::uint16_t destination_port = icmp ? original.destination_port : reply.source_port;
  if (reply.destination != original.source || source_port != original.source_port) {
    put_nat(writer, CTA_NAT_SRC, reply.destination, source_port);
  }
  if (reply.source != original.destination || destination_port != original.destination_port) {
    put_nat(writer, CTA_NAT_DST, reply.source, icmp ? reply.source_port : destination_port);
  }
}

void put_tcp(AttributeWriter& writer, const ConntrackTcp& tcp) {
  const auto flags = [&writer](std::uint16_t type, std::uint8_t value) {
    const nf_ct_tcp_flags field{static_cast<std::uint8_t>(value & kTcpFlagsMask), kTcpFlagsMask};
    writer.bytes(type, Bytes(reinterpret_cast<const std::uint8_t*>(&field), sizeof field));
  };
  writer.nest(CTA_PROTOINFO, [&] {
    writer.nest(CTA_PROTOINFO_TCP, [&] {
      writer.u8(CTA_PROTOINFO_TCP_STATE, tcp.state);
      writer.u8(CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, tcp.scale_original);
      writer.u8(CTA_PROTOINFO_TCP_WSCALE_REPLY, tcp.scale_reply);
      flags(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, tcp.flags_original);
      flags(CTA_PROTOINFO_TCP_FLAGS_REPLY, tcp.flags_reply);
    });
  });
}

void put_partial_tuple(AttributeWriter& writer, std::uint16_t type, const std::optional<IpAddress>& source,
                       const std::optional<IpAddress>& destination) {
  if (!source && !destination) return;
  writer.nest(type, [&] {
    writer.nest(CTA_TUPLE_IP, [&] {
      if (source) put_address(writer, CTA_IP_V4_SRC, CTA_IP_V6_SRC, *source);
      if (destination) put_address(writer, CTA_IP_V4_DST, CTA_IP_V6_DST, *destination);
    });
  });
}

std::uint32_t filter_flags(const std::optional<IpAddress>& source, const std::optional<IpAddress>& destination) {
  return (source ? kFilterSource : 0) | (destination ? kFilterDestination : 0);
}

void put_filter_flags(AttributeWriter& writer, std::uint32_t original, std::uint32_t reply) {
  writer.nest(CTA_FILTER, [&] {
    writer.host32(CTA_FILTER_ORIG_FLAGS, original);
    writer.host32(CTA_FILTER_REPLY_FLAGS, reply);
  });
}

}  // namespace

std::vector<std::uint8_t> encode_key(const ConntrackKey& key) {
  std::vector<std::uint8_t> buffer;
  AttributeWriter writer(buffer);
  put_tuple(writer, CTA_TUPLE_ORIG, key.original);
  put_zone(writer, key.zone);
  return buffer;
}

std::vector<std::uint8_t> encode_filter(const ConntrackFilter& filter) {
  std::vector<std::uint8_t> buffer;
  AttributeWriter writer(buffer);
  if (filter.zone) writer.be16(CTA_ZONE, *filter.zone);
  const std::uint32_t original = filter_flags(filter.original_source, filter.original_destination);
  const std::uint32_t reply = filter_flags(filter.reply_source, filter.reply_destination);
  if (original == 0 && reply == 0) return buffer;
  put_partial_tuple(writer, CTA_TUPLE_ORIG, filter.original_source, filter.original_destination);
  put_partial_tuple(writer, CTA_TUPLE_REPLY, filter.reply_source, filter.reply_destination);
  put_filter_flags(writer, original, reply);
  return buffer;
}

std::vector<std::uint8_t> encode_impossible_filter() {
  std::vector<std::uint8_t> buffer;
  AttributeWriter writer(buffer);
  put_filter_flags(writer, 0x80000000U, 0);
  return buffer;
}

std::vector<std::uint8_t> encode_entry(const ConntrackEntry& entry, ConntrackOperation operation) {
  std::vector<std::uint8_t> buffer;
  AttributeWriter writer(buffer);
  put_tuple(writer, CTA_TUPLE_ORIG, entry.original);
  put_zone(writer, entry.zone);
  if (operation == ConntrackOperation::Delete) {
    writer.be32(CTA_ID, entry.id);
    return buffer;
  }
  if (entry.timeout != 0) writer.be32(CTA_TIMEOUT, entry.timeout);
  if (operation == ConntrackOperation::SetTimeout) return buffer;

  const std::uint32_t status = entry.status & kImportableStatus;
  writer.be32(CTA_STATUS, status);
  writer.be32(CTA_MARK, entry.mark);
  if (entry.tcp) put_tcp(writer, *entry.tcp);
  if (operation == ConntrackOperation::Update) return buffer;

  put_tuple(writer, CTA_TUPLE_REPLY, mirror(entry.original));
  put_translation(writer, entry);
  if (!entry.helper.empty()) writer.nest(CTA_HELP, [&] { writer.string(CTA_HELP_NAME, entry.helper); });
  if (!entry.labels.empty()) {
    writer.bytes(CTA_LABELS, entry.labels);
    writer.bytes(CTA_LABELS_MASK, std::vector<std::uint8_t>(entry.labels.size(), 0xff));
  }
  return buffer;
}

}  // namespace sami::netlink
