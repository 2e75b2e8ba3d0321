// Which keys changed, per followed scope: one event subscription for all, alive only while somebody follows.
//
// Entries that stood here before events were enabled emit none (netlink::Conntrack::is_silent): those of a scope are
// read and compared at each changes(), so that only real changes are told.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "kernel/netlink/conntrack.h"
#include "state/connection_tracking/record.h"
#include "state/connection_tracking/scope_match.h"

namespace sami::state::connection_tracking {

class Follower {
 public:
  Follower(netlink::Conntrack& conntrack, std::size_t maximum_changes)
      : conntrack_(conntrack), maximum_changes_(maximum_changes) {}

  Result<void> follow(const Scope& scope, ScopeMatch match);
  void unfollow(const Scope& scope);
  // InvalidInput when the scope is not followed.
  Result<Changes> changes(const Scope& scope);

 private:
  using ScopeId = std::pair<std::string, std::uint32_t>;
  struct Silent {
    netlink::ConntrackKey key;
    std::string vn_name;
    Digest digest = 0;
  };
  struct Followed {
    ScopeMatch match;
    std::unordered_set<Key> dirty;
    std::vector<Silent> silent;
    bool overrun = false;
  };

  static ScopeId id_of(const Scope& scope) { return {scope.migration_id, scope.transfer}; }
  Result<void> find_silent(Followed& followed);
  Result<void> look_at_silent(Followed& followed);
  Result<void> take_events();
  void dispatch(const netlink::ConntrackEvent& event);
  void offer(Followed& followed, const netlink::ConntrackEvent& event);
  void overrun_all();

  netlink::Conntrack& conntrack_;
  std::size_t maximum_changes_;
  std::unique_ptr<netlink::ConntrackEvents> events_;
  std::map<ScopeId, Followed> followed_;
  std::map<ScopeMatch::Place, std::set<ScopeId>> by_place_;
  std::set<ScopeId> with_prefixes_;
};

}  // namespace sami::state::connection_tracking
