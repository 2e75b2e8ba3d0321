#include "state/connection_tracking/follower.h"

#include <fmt/format.h>
#include <netinet/in.h>

namespace sami::state::connection_tracking {

using netlink::ConntrackEntry;
using netlink::ConntrackEvent;

Result<void> Follower::follow(const Scope& scope, ScopeMatch match) {
  const ScopeId id = id_of(scope);
  if (followed_.contains(id)) return {};
  if (!events_) {
    auto events = conntrack_.subscribe();
    if (!events) return tl::unexpected(events.error());
    events_ = std::move(*events);
  }
  Followed followed;
  followed.match = std::move(match);
  if (auto found = find_silent(followed); !found) {
    if (followed_.empty()) events_.reset();
    return found;
  }
  for (const auto& place : followed.match.places()) by_place_[place].insert(id);
  if (followed.match.has_prefixes()) with_prefixes_.insert(id);
  followed_.emplace(id, std::move(followed));
  watch();
  return {};
}

void Follower::unfollow(const Scope& scope) {
  const ScopeId id = id_of(scope);
  const auto at = followed_.find(id);
  if (at == followed_.end()) return;
  for (const auto& place : at->second.match.places()) {
    const auto scopes = by_place_.find(place);
    if (scopes == by_place_.end()) continue;
    scopes->second.erase(id);
    if (scopes->second.empty()) by_place_.erase(scopes);
  }
  with_prefixes_.erase(id);
  followed_.erase(at);
  if (followed_.empty()) events_.reset();
  watch();
}

Result<Changes> Follower::changes(const Scope& scope) {
  const auto at = followed_.find(id_of(scope));
  if (at == followed_.end()) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("transfer {} of migration {} is not followed", scope.transfer, scope.migration_id));
  }
  if (auto taken = take_events(); !taken) return tl::unexpected(taken.error());
  take_packets();
  Followed& followed = at->second;
  if (auto looked = look_at_silent(followed); !looked) return tl::unexpected(looked.error());
  Changes changes;
  changes.overrun = std::exchange(followed.overrun, false);
  if (std::exchange(followed.windows_suspect, false)) followed.dirty.insert(followed.tcp.begin(), followed.tcp.end());
  if (!changes.overrun) changes.keys.assign(followed.dirty.begin(), followed.dirty.end());
  followed.dirty.clear();
  followed.still = followed.stopped;
  return changes;
}

Result<void> Follower::find_silent(Followed& followed) {
  if (!conntrack_.has_silent()) return {};
  std::map<netlink::ConntrackKey, Silent> silent;
  for (const auto& filter : followed.match.filters()) {
    auto dumped = conntrack_.table().dump(filter, [&](const ConntrackEntry& entry) {
      const auto key = netlink::key_of(entry);
      const std::string* vn = followed.match.vn_of(entry.original, entry.reply, entry.zone);
      if (vn != nullptr && conntrack_.is_silent(key)) silent[key] = {key, *vn, digest_of({*vn, entry})};
    });
    if (!dumped) return dumped;
  }
  for (auto& [key, entry] : silent) followed.silent.push_back(std::move(entry));
  return {};
}

Result<void> Follower::look_at_silent(Followed& followed) {
  if (followed.silent.empty()) return {};
  std::vector<netlink::ConntrackKey> keys;
  for (const auto& silent : followed.silent) keys.push_back(silent.key);
  const auto found = conntrack_.table().get(keys);
  if (!found) return tl::unexpected(found.error());
  std::vector<Silent> left;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    Silent& silent = followed.silent[i];
    const auto& entry = found->at(i);
    const Digest now = entry ? digest_of({silent.vn_name, *entry}) : 0;
    if (now != silent.digest) followed.dirty.insert(encode_key({silent.vn_name, silent.key.original}));
    silent.digest = now;
    // What takes its place emits events.
    if (entry) left.push_back(std::move(silent));
  }
  followed.silent = std::move(left);
  return {};
}

Result<void> Follower::take_events() {
  if (!events_) {
    auto events = conntrack_.subscribe();
    if (!events) return tl::unexpected(events.error());
    events_ = std::move(*events);
  }
  const auto drained = events_->drain();
  if (!drained) {
    overrun_all();
    if (drained.error().kind == ErrorKind::Retry) return {};
    events_.reset();
    return tl::unexpected(drained.error());
  }
  for (const auto& event : *drained) dispatch(event);
  return {};
}

void Follower::dispatch(const ConntrackEvent& event, bool only_a_packet) {
  std::set<ScopeId> scopes = with_prefixes_;
  for (const auto& end : {event.key.original.source, event.reply.source}) {
    const auto at = by_place_.find({event.key.zone, end});
    if (at != by_place_.end()) scopes.insert(at->second.begin(), at->second.end());
  }
  for (const auto& id : scopes) {
    Followed& followed = followed_.at(id);
    if (!only_a_packet || !followed.still) offer(followed, event);
  }
}

void Follower::offer(Followed& followed, const ConntrackEvent& event) {
  const std::string* vn = followed.match.vn_of(event.key.original, event.reply, event.key.zone);
  if (vn == nullptr) return;
  if (event.kind == netlink::EventKind::Destroy) {
    followed.tcp.erase(encode_key({*vn, event.key.original}));
  } else {
    note(followed, *vn, event.key.original, event.reply, event.key.zone);
  }
  if (followed.overrun) return;
  followed.dirty.insert(encode_key({*vn, event.key.original}));
  if (followed.dirty.size() > maximum_changes_) {
    followed.dirty.clear();
    followed.overrun = true;
  }
}

void Follower::note(Followed& followed, const std::string& vn_name, const netlink::ConntrackTuple& original,
                    const netlink::ConntrackTuple& reply, std::uint16_t zone) {
  if (tracker_ == nullptr || original.protocol != IPPROTO_TCP) return;
  followed.tcp.insert(encode_key({vn_name, original}));
  if (!followed.match.has_prefixes()) return;
  for (const auto& end : {original.source, reply.source}) {
    if (followed.match.has_end(zone, end)) followed.learned.insert({zone, end});
  }
}

void Follower::remember(const Scope& scope, const std::vector<Connection>& connections) {
  const auto at = followed_.find(id_of(scope));
  if (at == followed_.end()) return;
  at->second.tcp.clear();
  for (const auto& [vn_name, entry, window] : connections)
    note(at->second, vn_name, entry.original, entry.reply, entry.zone);
}

void Follower::suspect_windows(const Scope& scope) {
  const auto at = followed_.find(id_of(scope));
  if (at != followed_.end()) at->second.windows_suspect = true;
}

void Follower::set_stopped(const Scope& scope, bool stopped) {
  const auto at = followed_.find(id_of(scope));
  if (at == followed_.end()) return;
  at->second.stopped = stopped;
  at->second.still = false;
}

std::vector<windows::Place> Follower::ends(const Scope& scope) const {
  const auto at = followed_.find(id_of(scope));
  if (at == followed_.end()) return {};
  std::set<windows::Place> ends = at->second.learned;
  for (const auto& place : at->second.match.places()) ends.insert({place.zone, place.address});
  return {ends.begin(), ends.end()};
}

// A tracker that fails is done without.
void Follower::watch() {
  if (tracker_ == nullptr || !tracker_->available()) return;
  std::vector<windows::Place> places;
  for (const auto& [place, scopes] : by_place_) places.push_back({place.zone, place.address});
  tracks_ = tracker_->watch(places, !with_prefixes_.empty()).has_value();
}

void Follower::take_packets() {
  if (!tracks_) return;
  const auto taken = tracker_->take();
  tracks_ = taken.has_value();
  if (!taken || taken->overrun) {
    for (auto& [id, followed] : followed_) followed.windows_suspect = followed.windows_suspect || !followed.still;
  }
  if (!taken) return;
  for (const auto& noted : taken->connections) dispatch({netlink::EventKind::Update, noted.key, noted.reply}, true);
}

void Follower::overrun_all() {
  for (auto& [id, followed] : followed_) {
    followed.dirty.clear();
    followed.overrun = true;
  }
}

}  // namespace sami::state::connection_tracking
