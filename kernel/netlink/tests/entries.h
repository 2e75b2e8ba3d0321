// Entries for tests.
#pragma once

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <netinet/in.h>

#include <string>

#include "kernel/netlink/conntrack.h"

namespace sami::netlink::test {

inline constexpr std::uint32_t kConfirmed = IPS_CONFIRMED;
inline constexpr std::uint32_t kEstablished = IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED;

inline ConntrackTuple tuple(std::uint8_t protocol, const std::string& source, std::uint16_t source_port,
                            const std::string& destination, std::uint16_t destination_port) {
  return {parse_address(source).value(), parse_address(destination).value(), protocol, source_port, destination_port};
}

inline ConntrackEntry udp(const std::string& source, std::uint16_t source_port, const std::string& destination,
                          std::uint16_t destination_port, std::uint16_t zone = 0) {
  ConntrackEntry entry;
  entry.original = tuple(IPPROTO_UDP, source, source_port, destination, destination_port);
  entry.reply = mirror(entry.original);
  entry.zone = zone;
  entry.status = kConfirmed | IPS_SEEN_REPLY;
  entry.timeout = 100;
  return entry;
}

inline ConntrackEntry tcp(const std::string& source, std::uint16_t source_port, const std::string& destination,
                          std::uint16_t destination_port, std::uint16_t zone = 0) {
  ConntrackEntry entry = udp(source, source_port, destination, destination_port, zone);
  entry.original.protocol = entry.reply.protocol = IPPROTO_TCP;
  entry.status = kEstablished;
  entry.timeout = 1000;
  entry.tcp = ConntrackTcp{TCP_CONNTRACK_ESTABLISHED, 7, 9, 0x03, 0x03};
  return entry;
}

}  // namespace sami::netlink::test
