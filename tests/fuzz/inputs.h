// Structured input out of the fuzzer's bytes.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "kernel/netlink/memory_conntrack.h"
#include "state/connection_tracking/driver.h"
#include "state/connection_tracking/record.h"

namespace sami::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t octet() {
    if (bytes_.empty()) return 0;
    const std::uint8_t first = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return first;
  }
  // A few bytes, as the input says.
  std::string text() {
    const std::size_t size = std::min<std::size_t>(octet(), bytes_.size());
    std::string taken(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(size));
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  std::string rest() const { return {bytes_.begin(), bytes_.end()}; }

 private:
  std::span<const std::uint8_t> bytes_;
};

[[noreturn]] inline void broken(const char* what) {
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// Few addresses and ports, so that connections meet.
inline netlink::IpAddress address(std::uint8_t choice) {
  static constexpr const char* kTexts[] = {"10.0.0.1", "10.0.0.2", "198.51.100.7", "192.0.2.1", "192.0.2.9", "fd00::1"};
  return netlink::parse_address(kTexts[choice % std::size(kTexts)]).value();
}

inline state::connection_tracking::Connection connection(Input& input) {
  state::connection_tracking::Connection made;
  made.vn_name = input.octet() % 8 == 0 ? "red" : "blue";
  netlink::ConntrackEntry& entry = made.entry;
  const std::uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_GRE};
  entry.original = {address(input.octet()), address(input.octet()), protocols[input.octet() % 4],
                    static_cast<std::uint16_t>(input.octet() % 4), static_cast<std::uint16_t>(input.octet() % 4)};
  entry.reply = netlink::mirror(entry.original);
  const std::uint8_t translation = input.octet();
  if (translation & 1) entry.reply.destination = address(input.octet());
  if (translation & 2) entry.reply.source = address(input.octet());
  if (translation & 4) entry.reply.destination_port = input.octet() % 4;
  entry.status = input.octet();
  entry.timeout = input.octet();
  entry.mark = input.octet() % 2;
  if (entry.original.protocol == IPPROTO_TCP) {
    entry.tcp = netlink::ConntrackTcp{static_cast<std::uint8_t>(input.octet() % 11),
                                      static_cast<std::uint8_t>(input.octet() % 16),
                                      static_cast<std::uint8_t>(input.octet() % 16), input.octet(), input.octet()};
  }
  if (input.octet() % 16 == 0) entry.helper = input.octet() % 2 ? "ftp" : "other";
  return made;
}

inline state::ConnectionTrackingConfig config() {
  state::ConnectionTrackingConfig made;
  made.contexts["default"] = {{"blue", 4}};
  made.external_addresses = {{address(3), true}, {address(4), false}};
  made.capacity = 16;
  return made;
}

inline state::common::Subject subject() {
  state::common::Subject made;
  made.set_id("vm1");
  auto& interface = *made.add_interfaces();
  interface.set_vn_name("blue");
  interface.add_addresses(std::string("\x0a\x00\x00\x01", 4));
  return made;
}

}  // namespace sami::fuzz
