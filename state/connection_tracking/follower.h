// Which keys changed, per followed scope: one event subscription for all, alive only while somebody follows.
//
// Where windows are carried, a key has also changed when its connection had a packet: the packet tracker tells. Where
// it cannot, suspect_windows() names every TCP connection of the scope that is known.
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
#include "kernel/windows/windows.h"
#include "state/connection_tracking/record.h"
#include "state/connection_tracking/scope_match.h"

namespace sami::state::connection_tracking {

class Follower {
 public:
  // tracker: null where windows are not carried.
  Follower(netlink::Conntrack& conntrack, std::size_t maximum_changes, windows::PacketTracker* tracker)
      : conntrack_(conntrack), maximum_changes_(maximum_changes), tracker_(tracker) {}

  Result<void> follow(const Scope& scope, ScopeMatch match);
  void unfollow(const Scope& scope);
  // InvalidInput when the scope is not followed.
  Result<Changes> changes(const Scope& scope);

  // What a snapshot of the scope showed.
  void remember(const Scope& scope, const std::vector<Connection>& connections);
  // The windows of every known TCP connection of the scope count as changed at the next changes().
  void suspect_windows(const Scope& scope);
  // Whether the scope's packets are stopped: those that come after the next changes() reach nobody and alter nothing.
  void set_stopped(const Scope& scope, bool stopped);
  // Packets of the followed scopes are being noted.
  bool tracks() const { return tracks_; }
  // Where the subject's ends are: its addresses, and those that were learned so far.
  std::vector<windows::Place> ends(const Scope& scope) const;

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
    std::unordered_set<Key> tcp;  // known connections; only where windows are carried
    std::set<windows::Place> learned;
    bool windows_suspect = false;
    bool stopped = false;
    bool still = false;  // stopped, and told what came before
  };

  static ScopeId id_of(const Scope& scope) { return {scope.migration_id, scope.transfer}; }
  Result<void> find_silent(Followed& followed);
  Result<void> look_at_silent(Followed& followed);
  Result<void> take_events();
  void take_packets();
  void watch();
  void dispatch(const netlink::ConntrackEvent& event, bool only_a_packet = false);
  void offer(Followed& followed, const netlink::ConntrackEvent& event);
  void note(Followed& followed, const std::string& vn_name, const netlink::ConntrackTuple& original,
            const netlink::ConntrackTuple& reply, std::uint16_t zone);
  void overrun_all();

  netlink::Conntrack& conntrack_;
  std::size_t maximum_changes_;
  std::unique_ptr<netlink::ConntrackEvents> events_;
  std::map<ScopeId, Followed> followed_;
  std::map<ScopeMatch::Place, std::set<ScopeId>> by_place_;
  std::set<ScopeId> with_prefixes_;
  windows::PacketTracker* tracker_;
  bool tracks_ = false;
};

}  // namespace sami::state::connection_tracking
