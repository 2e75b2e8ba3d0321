// Which connections are a scope's: rule 5 (nothing foreign) and the peer selector. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernel/netlink/conntrack.h"
#include "runtime/result.h"
#include "state/driver.h"

namespace sami::state::connection_tracking {

using Zones = std::map<std::string, std::uint16_t>;  // VN name -> conntrack zone

class ScopeMatch {
 public:
  // InvalidInput names the address or prefix of the scope that is not one. VNs without a zone are left out.
  static Result<ScopeMatch> make(const Scope& scope, const Zones& zones);

  // The VN in which the connection is the subject's and its peer is selected; empty when it is not.
  const std::string* vn_of(const netlink::ConntrackTuple& original, const netlink::ConntrackTuple& reply,
                           std::uint16_t zone) const;
  // The same for one VN, whatever its zone.
  bool takes(const std::string& vn_name, const netlink::ConntrackTuple& original,
             const netlink::ConntrackTuple& reply) const;

  // The subject is the connection's responder only, not its originator.
  bool responds(const netlink::ConntrackTuple& original, const netlink::ConntrackTuple& reply) const;

  // Filters whose union has every connection of the scope (and others, when there are learned_within prefixes).
  std::vector<netlink::ConntrackFilter> filters() const;

  // Addresses, with their zones, by which an event can be found; a scope with prefixes must see every event.
  struct Place {
    std::uint16_t zone = 0;
    netlink::IpAddress address;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  std::vector<Place> places() const;
  bool has_prefixes() const;
  // The address is the subject's, provisioned or learned, in a VN of this zone.
  bool has_end(std::uint16_t zone, const netlink::IpAddress& address) const;
  bool empty() const { return interfaces_.empty(); }

 private:
  struct Prefix {
    netlink::IpAddress address;
    std::uint32_t length = 0;
    bool contains(const netlink::IpAddress& other) const;
  };
  struct Interface {
    std::string vn_name;
    std::uint16_t zone = 0;
    std::vector<netlink::IpAddress> addresses;
    std::vector<Prefix> learned_within;
    bool has(const netlink::IpAddress& address) const;
  };
  static Result<Prefix> read_prefix(const common::Prefix& prefix, const char* what);
  bool selects(const netlink::IpAddress& peer) const;
  bool takes(const Interface& interface, const netlink::ConntrackTuple& original,
             const netlink::ConntrackTuple& reply) const;

  std::vector<Interface> interfaces_;
  std::vector<Prefix> include_, exclude_;
};

// 4 or 16 octets.
std::optional<netlink::IpAddress> read_address(const std::string& octets);

}  // namespace sami::state::connection_tracking
