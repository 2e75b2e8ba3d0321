#include "tests/sim/fake_driver.h"

#include <algorithm>

#include "tests/sim/random.h"

namespace sami::sim {

namespace {

using state::InstallOutcome;

void put(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>((value >> shift) & 0xff));
}

std::uint32_t take(const std::string& in, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = at; i < at + 4; ++i) value = (value << 8) | static_cast<unsigned char>(in[i]);
  return value;
}

std::uint64_t hash(const std::string& bytes) {
  std::uint64_t value = 0xcbf29ce484222325ULL;
  for (const char c : bytes) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  value = mix(value);
  return value == 0 ? 1 : value;
}

Address address_of(const std::string& bytes) { return bytes.size() == 4 ? take(bytes, 0) : 0; }

bool within(const common::v1::Prefix& prefix, Address address) {
  if (prefix.address().size() != 4) return false;
  if (prefix.length() == 0) return true;
  const std::uint32_t mask = ~std::uint32_t{0} << (32 - prefix.length());
  return (address & mask) == (address_of(prefix.address()) & mask);
}

std::string encode_counter(const state::Key& key, std::uint64_t value) {
  std::string body = key;
  put(body, static_cast<std::uint32_t>(value >> 32));
  put(body, static_cast<std::uint32_t>(value));
  return body;
}

state::Record gone(const state::Key& key) { return {key, "", true, 0}; }
state::Record standing(const state::Key& key, std::string body) {
  const state::Digest digest = hash(body);
  return {key, std::move(body), false, digest};
}

}  // namespace

std::string octets(Address address) {
  std::string bytes;
  put(bytes, address);
  return bytes;
}

state::Key key_of(const Connection& connection) {
  state::Key key = "c";
  put(key, connection.first);
  put(key, connection.second);
  put(key, connection.port);
  return key;
}

std::string encode(const Connection& connection) {
  std::string body = key_of(connection);
  put(body, connection.translation);
  put(body, connection.version);
  return body;
}

bool decode(const std::string& body, Connection& connection) {
  if (body.size() != 21 || body[0] != 'c') return false;
  connection.first = take(body, 1);
  connection.second = take(body, 5);
  connection.port = take(body, 9);
  connection.translation = take(body, 13);
  connection.version = take(body, 17);
  return true;
}

std::uint64_t Counter::total() const {
  std::uint64_t sum = own;
  for (const auto& [epoch, value] : moved) sum += value;
  return sum;
}

state::Key counter_key(Address address) { return "n" + octets(address); }

void FakeHost::changed(std::string_view state_class, const std::string& context, const state::Key& key) {
  for (auto& [of, follower] : followers) {
    if (of == state_class) follower->changed(context, key);
  }
}

bool FakeHost::barrier_up(const std::string& context, const std::string& subject, Instant now) const {
  const auto place = contexts.find(context);
  if (place == contexts.end()) return false;
  const auto barrier = place->second.barriers.find(subject);
  return barrier != place->second.barriers.end() && barrier->second > now;
}

bool is_subjects(const common::v1::Subject& subject, Address address) {
  return std::any_of(subject.interfaces().begin(), subject.interfaces().end(), [&](const auto& nic) {
    return std::any_of(nic.addresses().begin(), nic.addresses().end(),
                       [&](const std::string& own) { return address_of(own) == address; });
  });
}

bool selects(const common::v1::PeerSelector& peers, Address address) {
  const auto covers = [&](const auto& prefixes) {
    return std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) { return within(prefix, address); });
  };
  return (peers.include().empty() || covers(peers.include())) && !covers(peers.exclude());
}

bool in_scope(const state::Scope& scope, Address first, Address second) {
  return (is_subjects(scope.subject, first) && selects(scope.peers, second)) ||
         (is_subjects(scope.subject, second) && selects(scope.peers, first));
}

// ---- what both classes share

FakeDriver::FakeDriver(FakeHost& host, std::string_view state_class, std::function<Instant()> now)
    : host_(host), class_(state_class), now_(std::move(now)) {
  host_.followers.emplace_back(class_, this);
}

FakeDriver::~FakeDriver() {
  std::erase_if(host_.followers, [this](const auto& entry) { return entry.second == this; });
}

const std::string& FakeDriver::context_name(const state::Scope& scope) {
  static const std::string standard = "default";
  return scope.context.empty() ? standard : scope.context;
}

Context* FakeDriver::context(const state::Scope& scope) const {
  const auto found = host_.contexts.find(context_name(scope));
  return found == host_.contexts.end() ? nullptr : &found->second;
}

state::DriverProfile FakeDriver::profile() const {
  state::DriverProfile profile;
  profile.state_class = class_;
  profile.representation = "memory/1";
  profile.capacity = host_.capacity;
  profile.needs_barrier = needs_barrier;
  profile.staged = class_ == counters_class;
  return profile;
}

Result<state::Preparation> FakeDriver::prepare(const state::Scope& scope) {
  state::Preparation preparation;
  const Context* place = context(scope);
  if (place == nullptr) {
    auto& finding = preparation.findings.emplace_back();
    finding.set_code(common::v1::FINDING_UNSUPPORTED);
    finding.set_detail("this host has no context " + context_name(scope));
    return preparation;
  }
  preparation.accepted = true;
  preparation.present = present(scope, *place);
  return preparation;
}

Result<void> FakeDriver::follow(const state::Scope& scope) {
  auto [entry, fresh] = followed_.try_emplace(scope.migration_id + "/" + std::to_string(scope.transfer));
  if (fresh) entry->second.scope = scope;
  return {};
}

Result<void> FakeDriver::unfollow(const state::Scope& scope) {
  followed_.erase(scope.migration_id + "/" + std::to_string(scope.transfer));
  return {};
}

Result<state::Changes> FakeDriver::changes(const state::Scope& scope) {
  const auto found = followed_.find(scope.migration_id + "/" + std::to_string(scope.transfer));
  if (found == followed_.end()) return failure(ErrorKind::InvalidInput, "not followed");
  state::Changes result;
  result.overrun = found->second.overrun;
  if (!result.overrun) result.keys.assign(found->second.keys.begin(), found->second.keys.end());
  found->second.keys.clear();
  found->second.overrun = false;
  return result;
}

void FakeDriver::changed(const std::string& where, const state::Key& key) {
  for (auto& [name, followed] : followed_) {
    if (context_name(followed.scope) != where || !in_scope_key(followed.scope, key)) continue;
    followed.keys.insert(key);
    if (followed.keys.size() > event_limit) followed.overrun = true;
  }
}

void FakeDriver::overrun() {
  for (auto& [name, followed] : followed_) {
    followed.keys.clear();
    followed.overrun = true;
  }
}

Result<std::vector<state::InstallResult>> FakeDriver::install(const state::Scope& scope,
                                                              const std::vector<state::InstallItem>& items) {
  std::vector<state::InstallResult> results;
  Context* place = context(scope);
  if (place == nullptr) return failure(ErrorKind::InvalidInput, "no context " + context_name(scope));
  results.reserve(items.size());
  for (const auto& item : items) results.push_back(install_one(scope, *place, item));
  return results;
}

Result<void> FakeDriver::activate(const state::Scope&, const std::vector<state::Key>&) { return {}; }

Result<void> FakeDriver::raise_barrier(const state::Scope& scope, std::uint32_t timeout_ms) {
  if (Context* place = context(scope)) {
    place->barriers[scope.subject.id()] = now_() + std::chrono::milliseconds(timeout_ms);
  }
  return {};
}

Result<void> FakeDriver::lower_barrier(const state::Scope& scope) {
  if (Context* place = context(scope)) place->barriers.erase(scope.subject.id());
  return {};
}

// ---- connections

FakeConnections::FakeConnections(FakeHost& host, std::function<Instant()> now)
    : FakeDriver(host, connections_class, std::move(now)) {}

bool FakeConnections::in_scope_key(const state::Scope& scope, const state::Key& key) const {
  return key.size() == 13 && in_scope(scope, take(key, 1), take(key, 5));
}

std::vector<state::Key> FakeConnections::present(const state::Scope& scope, const Context& place) const {
  std::vector<state::Key> keys;
  for (const auto& [key, connection] : place.connections) {
    if (in_scope(scope, connection.first, connection.second)) keys.push_back(key);
  }
  return keys;
}

Result<std::vector<state::Record>> FakeConnections::snapshot(const state::Scope& scope) {
  std::vector<state::Record> records;
  const Context* place = context(scope);
  if (place == nullptr) return records;
  for (const auto& [key, connection] : place->connections) {
    if (in_scope(scope, connection.first, connection.second)) records.push_back(standing(key, encode(connection)));
  }
  return records;
}

Result<std::vector<state::Record>> FakeConnections::read(const state::Scope& scope,
                                                         const std::vector<state::Key>& keys) {
  std::vector<state::Record> records;
  const Context* place = context(scope);
  for (const auto& key : keys) {
    const auto found =
        place == nullptr ? std::map<state::Key, Connection>::const_iterator{} : place->connections.find(key);
    const bool here = place != nullptr && found != place->connections.end();
    records.push_back(here ? standing(key, encode(found->second)) : gone(key));
  }
  return records;
}

state::InstallResult FakeConnections::install_one(const state::Scope& scope, Context& place,
                                                  const state::InstallItem& item) {
  state::InstallResult result{item.record.key, InstallOutcome::Failed, 0, 0, false, ""};
  const auto answer = [&](InstallOutcome outcome) {
    result.outcome = outcome;
    return result;
  };
  const auto standing_entry = place.connections.find(item.record.key);
  const bool stands = standing_entry != place.connections.end();
  if (!in_scope_key(scope, item.record.key))
    return answer(item.record.key.size() == 13 ? InstallOutcome::Foreign : InstallOutcome::Malformed);
  if (item.record.gone) {
    if (stands && item.ours && !item.only_if_absent) {
      place.connections.erase(standing_entry);
      host_.changed(class_, context_name(scope), item.record.key);
    }
    return answer(InstallOutcome::Removed);
  }
  Connection wanted;
  if (!decode(item.record.body, wanted) || key_of(wanted) != item.record.key) return answer(InstallOutcome::Malformed);
  wanted.born = now_();
  wanted.installed_by = scope.migration_id;
  result.digest = hash(item.record.body);
  InstallOutcome outcome = InstallOutcome::Installed;
  if (stands) {
    if (item.only_if_absent) return answer(InstallOutcome::Adopted);
    if (item.ours) {
      outcome = InstallOutcome::Updated;
    } else if (standing_entry->second.translation == wanted.translation) {
      return answer(InstallOutcome::Adopted);
    } else if (scope.conflict_rule == common::v1::CONFLICT_RULE_MOVED &&
               now_() - standing_entry->second.born <= young) {
      outcome = InstallOutcome::Replaced;
    } else {
      result.detail = "an entry with another translation";
      return answer(InstallOutcome::Conflict);
    }
  } else if (place.connections.size() >= host_.capacity) {
    return answer(InstallOutcome::NoCapacity);
  }
  place.connections[item.record.key] = wanted;
  host_.changed(class_, context_name(scope), item.record.key);
  return answer(outcome);
}

Result<void> FakeConnections::settle(const state::Scope&, const std::vector<state::Key>&) { return {}; }

Result<std::uint64_t> FakeConnections::remove(const state::Scope& scope, const std::vector<state::Key>& keys) {
  std::uint64_t removed = 0;
  Context* place = context(scope);
  if (place == nullptr) return removed;
  for (const auto& key : keys) {
    if (place->connections.erase(key) == 0) continue;
    ++removed;
    host_.changed(class_, context_name(scope), key);
  }
  return removed;
}

Result<std::uint64_t> FakeConnections::sweep(const state::Scope& scope) {
  const Context* place = context(scope);
  if (place == nullptr) return 0;
  return remove(scope, present(scope, *place));
}

// ---- counters

FakeCounters::FakeCounters(FakeHost& host, std::function<Instant()> now)
    : FakeDriver(host, counters_class, std::move(now)) {}

// A counter has no peer: it goes with the transfer that takes every peer, perhaps with exceptions.
bool FakeCounters::in_scope_key(const state::Scope& scope, const state::Key& key) const {
  return key.size() == 5 && scope.peers.include().empty() && is_subjects(scope.subject, take(key, 1));
}

// What is moved in is an object of its own, so nothing that stands here is ever in its way.
std::vector<state::Key> FakeCounters::present(const state::Scope&, const Context&) const { return {}; }

Result<std::vector<state::Record>> FakeCounters::snapshot(const state::Scope& scope) {
  std::vector<state::Key> keys;
  if (const Context* place = context(scope)) {
    for (const auto& [key, counter] : place->counters) {
      if (in_scope_key(scope, key)) keys.push_back(key);
    }
  }
  return read(scope, keys);
}

Result<std::vector<state::Record>> FakeCounters::read(const state::Scope& scope, const std::vector<state::Key>& keys) {
  std::vector<state::Record> records;
  const Context* place = context(scope);
  for (const auto& key : keys) {
    if (place == nullptr || !place->counters.contains(key)) {
      records.push_back(gone(key));
      continue;
    }
    const Counter& counter = place->counters.at(key);
    const auto moved = counter.moved.find(scope.epoch);
    records.push_back(
        standing(key, encode_counter(key, moved == counter.moved.end() ? counter.total() : moved->second)));
  }
  return records;
}

state::InstallResult FakeCounters::install_one(const state::Scope& scope, Context& place,
                                               const state::InstallItem& item) {
  state::InstallResult result{item.record.key, InstallOutcome::Failed, 0, 0, false, ""};
  const auto answer = [&](InstallOutcome outcome) {
    result.outcome = outcome;
    return result;
  };
  if (!in_scope_key(scope, item.record.key))
    return answer(item.record.key.size() == 5 ? InstallOutcome::Foreign : InstallOutcome::Malformed);
  const auto found = place.counters.find(item.record.key);
  const bool stands = found != place.counters.end();
  const bool ours_stands = stands && found->second.moved.contains(scope.epoch);
  if (item.record.gone) {
    if (ours_stands && item.ours && !item.only_if_absent) found->second.moved.erase(scope.epoch);
    return answer(InstallOutcome::Removed);
  }
  const std::string& body = item.record.body;
  if (body.size() != 13 || body.substr(0, 5) != item.record.key) return answer(InstallOutcome::Malformed);
  result.digest = hash(body);
  if (stands && item.only_if_absent) return answer(InstallOutcome::Adopted);
  auto& moved = place.counters[item.record.key].moved;
  // Ours by an older, unfinished migration: its object gives way to this one's.
  if (item.ours && !ours_stands) moved.erase(moved.begin(), moved.lower_bound(scope.epoch));
  moved[scope.epoch] = (std::uint64_t{take(body, 5)} << 32) | take(body, 9);
  host_.changed(class_, context_name(scope), item.record.key);
  return answer(ours_stands ? InstallOutcome::Updated : InstallOutcome::Installed);
}

Result<void> FakeCounters::settle(const state::Scope& scope, const std::vector<state::Key>& keys) {
  Context* place = context(scope);
  if (place == nullptr) return {};
  for (const auto& key : keys) {
    const auto found = place->counters.find(key);
    if (found == place->counters.end()) continue;
    Counter& counter = found->second;
    if (const auto moved = counter.moved.find(scope.epoch); moved != counter.moved.end()) {
      counter.own += moved->second;
      counter.moved.erase(moved);
    }
  }
  return {};
}

// What was moved in and not folded goes first; without any, the counter was counted here and goes as a whole.
Result<std::uint64_t> FakeCounters::remove(const state::Scope& scope, const std::vector<state::Key>& keys) {
  std::uint64_t removed = 0;
  Context* place = context(scope);
  if (place == nullptr) return removed;
  for (const auto& key : keys) {
    const auto found = place->counters.find(key);
    if (found == place->counters.end()) continue;
    Counter& counter = found->second;
    const auto end = counter.moved.upper_bound(scope.epoch);
    const bool had = end != counter.moved.begin();
    counter.moved.erase(counter.moved.begin(), end);
    if (!had || counter.total() == 0) place->counters.erase(found);
    ++removed;
    host_.changed(class_, context_name(scope), key);
  }
  return removed;
}

Result<std::uint64_t> FakeCounters::sweep(const state::Scope& scope) {
  std::uint64_t removed = 0;
  Context* place = context(scope);
  if (place == nullptr) return removed;
  for (auto counter = place->counters.begin(); counter != place->counters.end();) {
    const bool ours = in_scope_key(scope, counter->first);
    const state::Key key = counter->first;
    counter = ours ? place->counters.erase(counter) : std::next(counter);
    if (!ours) continue;
    ++removed;
    host_.changed(class_, context_name(scope), key);
  }
  return removed;
}

}  // namespace sami::sim
