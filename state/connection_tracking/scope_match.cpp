#include "state/connection_tracking/scope_match.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <set>

namespace sami::state::connection_tracking {

using netlink::ConntrackFilter;
using netlink::ConntrackTuple;
using netlink::IpAddress;

std::optional<IpAddress> read_address(const std::string& octets) {
  if (octets.size() != 4 && octets.size() != 16) return std::nullopt;
  IpAddress address;
  address.family = octets.size() == 4 ? AF_INET : AF_INET6;
  std::copy(octets.begin(), octets.end(), address.octets.begin());
  return address;
}

bool ScopeMatch::Prefix::contains(const IpAddress& other) const {
  if (other.family != address.family) return false;
  for (std::uint32_t at = 0, left = length; left > 0; ++at) {
    const std::uint32_t bits = std::min(left, 8U);
    const auto mask = static_cast<std::uint8_t>(0xff00U >> bits);
    if ((other.octets[at] ^ address.octets[at]) & mask) return false;
    left -= bits;
  }
  return true;
}

bool ScopeMatch::Interface::has(const IpAddress& address) const {
  return std::find(addresses.begin(), addresses.end(), address) != addresses.end() ||
         std::any_of(learned_within.begin(), learned_within.end(),
                     [&](const Prefix& prefix) { return prefix.contains(address); });
}

Result<ScopeMatch::Prefix> ScopeMatch::read_prefix(const common::Prefix& prefix, const char* what) {
  const auto address = read_address(prefix.address());
  if (!address || prefix.length() > prefix.address().size() * 8) {
    return failure(ErrorKind::InvalidInput, fmt::format("{}: a prefix of {} octets and length {}", what,
                                                        prefix.address().size(), prefix.length()));
  }
  return Prefix{*address, prefix.length()};
}

Result<ScopeMatch> ScopeMatch::make(const Scope& scope, const Zones& zones) {
  ScopeMatch match;
  for (const auto& interface : scope.subject.interfaces()) {
    const auto zone = zones.find(interface.vn_name());
    if (zone == zones.end()) continue;
    Interface& made = match.interfaces_.emplace_back();
    made.vn_name = interface.vn_name();
    made.zone = zone->second;
    for (const auto& octets : interface.addresses()) {
      const auto address = read_address(octets);
      if (!address)
        return failure(ErrorKind::InvalidInput, fmt::format("subject: an address of {} octets", octets.size()));
      made.addresses.push_back(*address);
    }
    for (const auto& prefix : interface.learned_within()) {
      auto read = read_prefix(prefix, "subject.learned_within");
      if (!read) return tl::unexpected(read.error());
      made.learned_within.push_back(*read);
    }
  }
  for (const auto& [prefixes, into] :
       {std::pair(&scope.peers.include(), &match.include_), std::pair(&scope.peers.exclude(), &match.exclude_)}) {
    for (const auto& prefix : *prefixes) {
      auto read = read_prefix(prefix, "peers");
      if (!read) return tl::unexpected(read.error());
      into->push_back(*read);
    }
  }
  return match;
}

bool ScopeMatch::selects(const IpAddress& peer) const {
  const auto within = [&peer](const std::vector<Prefix>& prefixes) {
    return std::any_of(prefixes.begin(), prefixes.end(), [&](const Prefix& prefix) { return prefix.contains(peer); });
  };
  return (include_.empty() || within(include_)) && !within(exclude_);
}

bool ScopeMatch::takes(const Interface& interface, const ConntrackTuple& original, const ConntrackTuple& reply) const {
  if (interface.has(original.source)) return selects(reply.source);
  return interface.has(reply.source) && selects(original.source);
}

const std::string* ScopeMatch::vn_of(const ConntrackTuple& original, const ConntrackTuple& reply,
                                     std::uint16_t zone) const {
  for (const auto& interface : interfaces_) {
    if (interface.zone == zone && takes(interface, original, reply)) return &interface.vn_name;
  }
  return nullptr;
}

bool ScopeMatch::takes(const std::string& vn_name, const ConntrackTuple& original, const ConntrackTuple& reply) const {
  return std::any_of(interfaces_.begin(), interfaces_.end(), [&](const Interface& interface) {
    return interface.vn_name == vn_name && takes(interface, original, reply);
  });
}

bool ScopeMatch::responds(const ConntrackTuple& original, const ConntrackTuple& reply) const {
  const auto any_has = [&](const IpAddress& address) {
    return std::any_of(interfaces_.begin(), interfaces_.end(),
                       [&](const auto& interface) { return interface.has(address); });
  };
  return !any_has(original.source) && any_has(reply.source);
}

std::vector<ConntrackFilter> ScopeMatch::filters() const {
  std::vector<ConntrackFilter> filters;
  std::set<std::pair<std::uint16_t, std::uint8_t>> whole;  // zone and family that are dumped unfiltered
  for (const auto& interface : interfaces_) {
    for (const auto& prefix : interface.learned_within) {
      if (!whole.emplace(interface.zone, prefix.address.family).second) continue;
      ConntrackFilter filter;
      filter.family = prefix.address.family;
      filter.zone = interface.zone;
      filters.push_back(filter);
    }
  }
  std::set<Place> seen;
  for (const Place& place : places()) {
    if (whole.contains({place.zone, place.address.family}) || !seen.insert(place).second) continue;
    ConntrackFilter filter;
    filter.family = place.address.family;
    filter.zone = place.zone;
    filter.original_source = place.address;
    filters.push_back(filter);
    filter.original_source.reset();
    filter.reply_source = place.address;
    filters.push_back(filter);
  }
  return filters;
}

std::vector<ScopeMatch::Place> ScopeMatch::places() const {
  std::vector<Place> places;
  for (const auto& interface : interfaces_) {
    for (const auto& address : interface.addresses) places.push_back({interface.zone, address});
  }
  return places;
}

bool ScopeMatch::has_end(std::uint16_t zone, const IpAddress& address) const {
  return std::any_of(interfaces_.begin(), interfaces_.end(),
                     [&](const Interface& interface) { return interface.zone == zone && interface.has(address); });
}

bool ScopeMatch::has_prefixes() const {
  return std::any_of(interfaces_.begin(), interfaces_.end(),
                     [](const Interface& interface) { return !interface.learned_within.empty(); });
}

}  // namespace sami::state::connection_tracking
