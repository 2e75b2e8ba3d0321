#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include <algorithm>

#include "kernel/netlink/attributes.h"
#include "kernel/netlink/conntrack.h"

namespace sami::netlink {

namespace {

Result<IpAddress> decode_address(const AttributeTable& table, std::uint8_t family, std::uint16_t type) {
  const std::size_t size = family == AF_INET ? 4 : 16;
  const auto value = table.get(type);
  if (!value || value->size() != size)
    return failure(ErrorKind::Corrupt, "CTA_TUPLE_IP: an address is missing or short");
  IpAddress address;
  address.family = family;
  std::copy(value->begin(), value->end(), address.octets.begin());
  return address;
}

Result<void> decode_protocol(Bytes bytes, ConntrackTuple& tuple) {
  const auto table = AttributeTable::parse(bytes, "CTA_TUPLE_PROTO");
  if (!table) return tl::unexpected(table.error());
  const auto number = table->u8(CTA_PROTO_NUM);
  if (!number) return failure(ErrorKind::Corrupt, "CTA_TUPLE_PROTO: no CTA_PROTO_NUM");
  tuple.protocol = *number;
  if (is_icmp(tuple.protocol)) {
    const bool version6 = tuple.source.family == AF_INET6;
    const auto type = table->u8(version6 ? CTA_PROTO_ICMPV6_TYPE : CTA_PROTO_ICMP_TYPE).value_or(0);
    const auto code = table->u8(version6 ? CTA_PROTO_ICMPV6_CODE : CTA_PROTO_ICMP_CODE).value_or(0);
    tuple.source_port = table->be16(version6 ? CTA_PROTO_ICMPV6_ID : CTA_PROTO_ICMP_ID).value_or(0);
    tuple.destination_port = static_cast<std::uint16_t>(type << 8 | code);
  } else {
    tuple.source_port = table->be16(CTA_PROTO_SRC_PORT).value_or(0);
    tuple.destination_port = table->be16(CTA_PROTO_DST_PORT).value_or(0);
  }
  return {};
}

Result<ConntrackTuple> decode_tuple(std::uint8_t family, const std::optional<Bytes>& bytes) {
  if (!bytes) return failure(ErrorKind::Corrupt, "conntrack entry without both tuples");
  const auto table = AttributeTable::parse(*bytes, "CTA_TUPLE");
  if (!table) return tl::unexpected(table.error());
  if (!table->has(CTA_TUPLE_IP) || !table->has(CTA_TUPLE_PROTO)) {
    return failure(ErrorKind::Corrupt, "CTA_TUPLE: addresses or protocol are missing");
  }
  if (table->has(CTA_TUPLE_ZONE)) {
    return failure(ErrorKind::Unsupported, "conntrack entry with a zone of one direction only");
  }
  const auto addresses = AttributeTable::parse(*table->get(CTA_TUPLE_IP), "CTA_TUPLE_IP");
  if (!addresses) return tl::unexpected(addresses.error());
  const bool version4 = family == AF_INET;
  const auto source = decode_address(*addresses, family, version4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
  const auto destination = decode_address(*addresses, family, version4 ? CTA_IP_V4_DST : CTA_IP_V6_DST);
  if (!source) return tl::unexpected(source.error());
  if (!destination) return tl::unexpected(destination.error());
  ConntrackTuple tuple;
  tuple.source = *source;
  tuple.destination = *destination;
  if (auto decoded = decode_protocol(*table->get(CTA_TUPLE_PROTO), tuple); !decoded) {
    return tl::unexpected(decoded.error());
  }
  return tuple;
}

Result<std::optional<ConntrackTcp>> decode_tcp(Bytes bytes) {
  const auto outer = AttributeTable::parse(bytes, "CTA_PROTOINFO");
  if (!outer) return tl::unexpected(outer.error());
  const auto inner = outer->get(CTA_PROTOINFO_TCP);
  if (!inner) return std::optional<ConntrackTcp>();
  const auto table = AttributeTable::parse(*inner, "CTA_PROTOINFO_TCP");
  if (!table) return tl::unexpected(table.error());
  ConntrackTcp tcp;
  tcp.state = table->u8(CTA_PROTOINFO_TCP_STATE).value_or(0);
  tcp.scale_original = table->u8(CTA_PROTOINFO_TCP_WSCALE_ORIGINAL).value_or(0);
  tcp.scale_reply = table->u8(CTA_PROTOINFO_TCP_WSCALE_REPLY).value_or(0);
  tcp.flags_original = table->u8(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL).value_or(0);
  tcp.flags_reply = table->u8(CTA_PROTOINFO_TCP_FLAGS_REPLY).value_or(0);
  return std::optional(tcp);
}

Result<std::string> decode_helper(Bytes bytes) {
  const auto table = AttributeTable::parse(bytes, "CTA_HELP");
  if (!table) return tl::unexpected(table.error());
  const auto name = table->get(CTA_HELP_NAME);
  if (!name) return std::string();
  return std::string(name->begin(), std::find(name->begin(), name->end(), std::uint8_t{0}));
}

Result<void> decode_counters(const std::optional<Bytes>& bytes, std::uint64_t& packets, std::uint64_t& octets) {
  if (!bytes) return {};
  const auto table = AttributeTable::parse(*bytes, "CTA_COUNTERS");
  if (!table) return tl::unexpected(table.error());
  packets = table->be64(CTA_COUNTERS_PACKETS).value_or(0);
  octets = table->be64(CTA_COUNTERS_BYTES).value_or(0);
  return {};
}

// Everything but the tuples.
Result<void> decode_properties(const AttributeTable& table, ConntrackEntry& entry) {
  entry.zone = table.be16(CTA_ZONE).value_or(0);
  entry.status = table.be32(CTA_STATUS).value_or(0);
  entry.timeout = table.be32(CTA_TIMEOUT).value_or(0);
  entry.mark = table.be32(CTA_MARK).value_or(0);
  entry.id = table.be32(CTA_ID).value_or(0);
  if (const auto bytes = table.get(CTA_PROTOINFO)) {
    auto tcp = decode_tcp(*bytes);
    if (!tcp) return tl::unexpected(tcp.error());
    entry.tcp = *tcp;
  }
  if (const auto bytes = table.get(CTA_HELP)) {
    auto helper = decode_helper(*bytes);
    if (!helper) return tl::unexpected(helper.error());
    entry.helper = std::move(*helper);
  }
  if (const auto bytes = table.get(CTA_LABELS)) entry.labels.assign(bytes->begin(), bytes->end());
  auto original = decode_counters(table.get(CTA_COUNTERS_ORIG), entry.packets_original, entry.bytes_original);
  if (!original) return original;
  return decode_counters(table.get(CTA_COUNTERS_REPLY), entry.packets_reply, entry.bytes_reply);
}

}  // namespace

Result<ConntrackEntry> decode_entry(std::uint8_t family, std::span<const std::uint8_t> attributes) {
  if (family != AF_INET && family != AF_INET6)
    return failure(ErrorKind::Corrupt, "conntrack entry of an unknown family");
  const auto table = AttributeTable::parse(attributes, "conntrack entry");
  if (!table) return tl::unexpected(table.error());
  const auto original = decode_tuple(family, table->get(CTA_TUPLE_ORIG));
  if (!original) return tl::unexpected(original.error());
  const auto reply = decode_tuple(family, table->get(CTA_TUPLE_REPLY));
  if (!reply) return tl::unexpected(reply.error());
  ConntrackEntry entry;
  entry.original = *original;
  entry.reply = *reply;
  if (auto decoded = decode_properties(*table, entry); !decoded) return tl::unexpected(decoded.error());
  return entry;
}

}  // namespace sami::netlink
