#include "kernel/netlink/conntrack.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <utility>

namespace sami::netlink {

namespace {

// The type of the reply, or nullopt (nf_conntrack_proto_icmp.c and _icmpv6.c, invmap).
std::optional<std::uint8_t> inverse_icmp_type(std::uint8_t protocol, std::uint8_t type) {
  if (protocol == IPPROTO_ICMP) {
    switch (type) {
      case 0: return 8;
      case 8: return 0;
      case 13: return 14;
      case 14: return 13;
      case 15: return 16;
      case 16: return 15;
      case 17: return 18;
      case 18: return 17;
      default: return std::nullopt;
    }
  }
  switch (type) {
    case 128: return 129;
    case 129: return 128;
    case 139: return 140;
    case 140: return 139;
    default: return std::nullopt;
  }
}

std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 33)) * 0xff51afd7ed558ccdULL;
  value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return value ^ (value >> 33);
}

std::uint64_t mix_address(std::uint64_t seed, const IpAddress& address) {
  for (const std::uint8_t octet : address.octets) seed = (seed ^ octet) * 0x100000001b3ULL;
  return mix(seed ^ address.family);
}

}  // namespace

std::string to_string(const IpAddress& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.family != AF_INET && address.family != AF_INET6) return "none";
  return inet_ntop(address.family, address.octets.data(), text, sizeof text) ? text : "none";
}

std::optional<IpAddress> parse_address(const std::string& text) {
  IpAddress address;
  for (const int family : {AF_INET, AF_INET6}) {
    if (inet_pton(family, text.c_str(), address.octets.data()) == 1) {
      address.family = static_cast<std::uint8_t>(family);
      return address;
    }
  }
  return std::nullopt;
}

std::string to_string(const ConntrackTuple& tuple) {
  const std::string protocol = tuple.protocol == IPPROTO_TCP   ? "tcp"
                               : tuple.protocol == IPPROTO_UDP ? "udp"
                               : is_icmp(tuple.protocol)       ? "icmp"
                                                               : fmt::format("protocol {}", tuple.protocol);
  const auto end = [](const IpAddress& address, std::uint16_t port) {
    const std::string text = to_string(address);
    return address.family == AF_INET6 ? fmt::format("[{}]:{}", text, port) : fmt::format("{}:{}", text, port);
  };
  if (is_icmp(tuple.protocol)) {
    return fmt::format("{} {} -> {} type {} id {}", protocol, to_string(tuple.source), to_string(tuple.destination),
                       tuple.destination_port >> 8, tuple.source_port);
  }
  return fmt::format("{} {} -> {}", protocol, end(tuple.source, tuple.source_port),
                     end(tuple.destination, tuple.destination_port));
}

bool is_icmp(std::uint8_t protocol) { return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6; }

ConntrackTuple mirror(const ConntrackTuple& tuple) {
  ConntrackTuple reply = tuple;
  std::swap(reply.source, reply.destination);
  if (!is_icmp(tuple.protocol)) {
    std::swap(reply.source_port, reply.destination_port);
    return reply;
  }
  const auto type = inverse_icmp_type(tuple.protocol, static_cast<std::uint8_t>(tuple.destination_port >> 8));
  if (type) reply.destination_port = static_cast<std::uint16_t>(*type << 8 | (tuple.destination_port & 0xff));
  return reply;
}

ConntrackKey key_of(const ConntrackEntry& entry) { return {entry.original, entry.zone}; }

std::uint64_t hash_value(const ConntrackKey& key) {
  std::uint64_t hash = mix_address(0xcbf29ce484222325ULL, key.original.source);
  hash = mix_address(hash, key.original.destination);
  const std::uint64_t ports = std::uint64_t{key.original.source_port} << 16 | key.original.destination_port;
  return mix(hash ^ (ports << 24 | std::uint64_t{key.original.protocol} << 16 | key.zone));
}

bool matches(const ConntrackFilter& filter, const ConntrackEntry& entry) {
  const auto equal = [](const auto& wanted, const auto& value) { return !wanted || *wanted == value; };
  return entry.original.source.family == filter.family && equal(filter.original_source, entry.original.source) &&
         equal(filter.original_destination, entry.original.destination) &&
         equal(filter.reply_source, entry.reply.source) && equal(filter.reply_destination, entry.reply.destination) &&
         equal(filter.zone, entry.zone);
}

}  // namespace sami::netlink
