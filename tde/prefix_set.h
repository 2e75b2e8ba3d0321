// Exact sets of IP addresses, built from prefixes: what "the first path that fits" and "the same transfer" mean for
// peers. A value; immutable inside, so that copies are cheap. Pure. IPv4 and IPv6 addresses are kept apart.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "interfaces/common/common.pb.h"
#include "runtime/config.h"

namespace sami::tde {

namespace common = ::sami::common::v1;

common::Prefix to_message(const AddressPrefix& prefix);
std::string to_string(const common::Prefix& prefix);

class PrefixSet {
 public:
  PrefixSet() = default;                             // empty
  explicit PrefixSet(const common::Prefix& prefix);  // bits beyond the length are zero

  bool empty() const;
  bool contains(std::string_view address) const;     // 4 or 16 octets
  PrefixSet operator|(const PrefixSet& other) const;
  PrefixSet operator&(const PrefixSet& other) const;
  PrefixSet operator-(const PrefixSet& other) const;

  // The shortest include and exclude lists that select exactly this set. The empty set has none: a selector without
  // include means everything.
  common::PeerSelector selector() const;

  struct Node;                                       // nullptr: nothing; full(): everything below
  using Tree = std::shared_ptr<const Node>;

 private:
  Tree v4_, v6_;
};

// "10.1.2.0/24", "0.0.0.0/0 except 10.1.2.0/24".
std::string to_string(const common::PeerSelector& selector);

}  // namespace sami::tde
