// The canonical record of one tracked connection (connection_tracking.proto), its key and its digest. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernel/netlink/conntrack.h"
#include "kernel/windows/windows.h"
#include "runtime/result.h"
#include "state/driver.h"

namespace sami::state::connection_tracking {

// What a record says, in the kernel's words; entry.zone and entry.id mean nothing here.
struct Connection {
  std::string vn_name;
  netlink::ConntrackEntry entry;
  std::optional<windows::TcpWindow> window{};  // of TCP, exact
};

// Whether a window that was read can be told: it is exact, and both ends have spoken, or in SYN_SENT the first one.
bool is_tellable(const windows::TcpWindow& window, const netlink::ConntrackTcp& tcp);

// What a record may say of IPS_*: the importable bits, and SEQ_ADJUST and EXPECTED so that a destination which cannot
// carry them knows.
inline constexpr std::uint32_t kRecordedStatus = 0x4f;

std::string encode_body(const Connection& connection);
// InvalidInput names the field and what was expected. A longer timeout than a week counts as a week.
Result<Connection> decode_body(const std::string& body);

struct KeyParts {
  std::string vn_name;
  netlink::ConntrackTuple original;
  friend auto operator<=>(const KeyParts&, const KeyParts&) = default;
};
// Octets: length of the VN's name, the name, 4 or 6, protocol, source, destination, two ports in network order.
Key encode_key(const KeyParts& parts);
Result<KeyParts> decode_key(const Key& key);

// Covers what every host can hold: key, translation, mark, helper, SEEN_REPLY and ASSURED, TCP state, scales and flags;
// and the window, where there is one. Not: timeout, labels, BE_LIBERAL (the destination's own), scales that were not
// agreed on by both ends.
// Stable between versions; never 0.
Digest digest_of(const Connection& connection);

// As digest_of treats it: two records with equal normal forms are the same state.
netlink::ConntrackTcp normal_tcp(const netlink::ConntrackTcp& tcp);

}  // namespace sami::state::connection_tracking
