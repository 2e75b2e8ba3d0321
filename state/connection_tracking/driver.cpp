#include "state/connection_tracking/driver.h"

#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "state/connection_tracking/barriers.h"
#include "state/connection_tracking/follower.h"
#include "state/connection_tracking/installer.h"
#include "state/connection_tracking/ledger.h"
#include "state/connection_tracking/record.h"
#include "state/connection_tracking/scope_match.h"

namespace sami::state {

namespace {

using namespace connection_tracking;
using netlink::ConntrackEntry;
using netlink::ConntrackKey;
using netlink::ConntrackOperation;

// What a timeout that nobody touched may differ from the expected one, in seconds: both are rounded.
constexpr std::int64_t kTimeoutTolerance = 2;

struct Context {
  std::string name;
  const Zones* zones = nullptr;
  ScopeMatch match;
};

class ConnectionTrackingDriver : public Driver {
 public:
  ConnectionTrackingDriver(netlink::Conntrack& conntrack, ConnectionTrackingConfig config, const Clock& clock,
                           WindowAccess access)
      : conntrack_(conntrack),
        config_(std::move(config)),
        clock_(clock),
        access_(only_if_available(std::move(access))),
        follower_(conntrack, config_.maximum_changes, access_.windows == nullptr ? nullptr : access_.tracker) {}

  DriverProfile profile() const override;
  Result<Preparation> prepare(const Scope& scope) override;
  Result<void> follow(const Scope& scope) override;
  Result<void> unfollow(const Scope& scope) override;
  Result<Changes> changes(const Scope& scope) override { return follower_.changes(scope); }
  Result<std::vector<Record>> snapshot(const Scope& scope) override;
  Result<std::vector<Record>> read(const Scope& scope, const std::vector<Key>& keys) override;
  Result<std::vector<InstallResult>> install(const Scope& scope, const std::vector<InstallItem>& items) override;
  Result<void> activate(const Scope& scope, const std::vector<Key>& keys) override;
  Result<void> settle(const Scope& scope, const std::vector<Key>& keys) override;
  Result<std::uint64_t> remove(const Scope& scope, const std::vector<Key>& keys) override;
  Result<std::uint64_t> sweep(const Scope& scope) override;
  Result<void> raise_barrier(const Scope& scope, std::uint32_t timeout_ms) override;
  Result<void> lower_barrier(const Scope& scope) override;

 private:
  // Unsupported when the scope's context is not one of this host's.
  Result<Context> context_of(const Scope& scope) const;
  Result<std::vector<ConntrackKey>> kernel_keys(const Context& context, const std::vector<Key>& keys) const;
  // Each entry of the scope once, with its VN.
  Result<std::vector<Connection>> entries_of(const Context& context);
  Result<std::uint64_t> delete_entries(const std::vector<ConntrackEntry>& entries);
  // Adds the windows of those that are TCP, where they can be told.
  void add_windows(const Scope& scope, std::vector<Connection>& connections);
  static WindowAccess only_if_available(WindowAccess access);

  netlink::Conntrack& conntrack_;
  ConnectionTrackingConfig config_;
  const Clock& clock_;
  WindowAccess access_;
  Follower follower_;
  Ledger ledger_;
  Barriers barriers_;
};

Record record_of(const Connection& connection) {
  return {encode_key({connection.vn_name, connection.entry.original}), encode_body(connection), false,
          digest_of(connection)};
}

common::Finding finding(common::FindingCode code, std::string detail) {
  common::Finding made;
  made.set_code(code);
  made.set_detail(std::move(detail));
  return made;
}

DriverProfile ConnectionTrackingDriver::profile() const {
  DriverProfile profile;
  profile.state_class = "connection_tracking";
  profile.representation = "ctnetlink/1";
  profile.capacity = config_.capacity;
  profile.needs_barrier = access_.windows != nullptr;
  profile.not_carried = {"packet and byte counters", "start time", "expectations", "sequence adjustment",
                         "protocols other than TCP, UDP and ICMP"};
  profile.capabilities = {"CAP_NET_ADMIN"};
  if (access_.windows == nullptr) {
    profile.not_carried.push_back(fmt::format("TCP windows, imported BE_LIBERAL ({})", access_.why_not));
  } else {
    profile.capabilities.insert(profile.capabilities.end(), {"CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"});
  }
  return profile;
}

Result<Context> ConnectionTrackingDriver::context_of(const Scope& scope) const {
  const std::string name = scope.context.empty() ? "default" : scope.context;
  const auto at = config_.contexts.find(name);
  if (at == config_.contexts.end()) {
    return failure(ErrorKind::Unsupported, fmt::format("this host has no context {}", name));
  }
  auto match = ScopeMatch::make(scope, at->second);
  if (!match) return tl::unexpected(match.error());
  return Context{name, &at->second, std::move(*match)};
}

Result<std::vector<ConntrackKey>> ConnectionTrackingDriver::kernel_keys(const Context& context,
                                                                        const std::vector<Key>& keys) const {
  std::vector<ConntrackKey> kernel;
  for (const auto& key : keys) {
    const auto parts = decode_key(key);
    if (!parts) return tl::unexpected(parts.error());
    const auto zone = context.zones->find(parts->vn_name);
    if (zone == context.zones->end()) {
      return failure(ErrorKind::Unsupported,
                     fmt::format("VN {} has no zone in context {}", parts->vn_name, context.name));
    }
    kernel.push_back({parts->original, zone->second});
  }
  return kernel;
}

Result<std::vector<Connection>> ConnectionTrackingDriver::entries_of(const Context& context) {
  std::vector<Connection> connections;
  std::set<ConntrackKey> seen;
  for (const auto& filter : context.match.filters()) {
    auto dumped = conntrack_.table().dump(filter, [&](const ConntrackEntry& entry) {
      const std::string* vn = context.match.vn_of(entry.original, entry.reply, entry.zone);
      if (vn != nullptr && seen.insert(netlink::key_of(entry)).second) connections.push_back({*vn, entry});
    });
    if (!dumped) return tl::unexpected(dumped.error());
  }
  return connections;
}

Result<std::uint64_t> ConnectionTrackingDriver::delete_entries(const std::vector<ConntrackEntry>& entries) {
  std::vector<netlink::ConntrackRequest> requests;
  for (const auto& entry : entries) requests.push_back({ConntrackOperation::Delete, entry});
  const auto errors = conntrack_.table().apply(requests);
  if (!errors) return tl::unexpected(errors.error());
  std::uint64_t deleted = 0;
  for (std::size_t i = 0; i < errors->size(); ++i) {
    if (errors->at(i) == 0) ++deleted;
    if (errors->at(i) != 0 && errors->at(i) != ENOENT) {
      return failure(
          ErrorKind::Failed,
          fmt::format("{}: cannot be deleted: {}", to_string(entries[i].original), std::strerror(errors->at(i))),
          errors->at(i));
    }
  }
  return deleted;
}

Result<Preparation> ConnectionTrackingDriver::prepare(const Scope& scope) {
  Preparation preparation;
  auto context = context_of(scope);
  if (!context) {
    const bool unsupported = context.error().kind == ErrorKind::Unsupported;
    preparation.findings.push_back(
        finding(unsupported ? common::FINDING_UNSUPPORTED : common::FINDING_MALFORMED, context.error().message));
    return preparation;
  }
  if (context->match.empty()) {
    preparation.findings.push_back(
        finding(common::FINDING_UNSUPPORTED,
                fmt::format("no virtual network of {} has a zone in context {}", scope.subject.id(), context->name)));
    return preparation;
  }
  if (ledger_.size() >= config_.capacity) ledger_.expire(clock_.now());
  if (ledger_.size() >= config_.capacity) {
    preparation.findings.push_back(finding(
        common::FINDING_NO_CAPACITY, fmt::format("{} records of open migrations are the limit", config_.capacity)));
    return preparation;
  }
  const auto present = entries_of(*context);
  if (!present) return tl::unexpected(present.error());
  for (const auto& connection : *present) {
    preparation.present.push_back(encode_key({connection.vn_name, connection.entry.original}));
  }
  preparation.accepted = true;
  return preparation;
}

Result<void> ConnectionTrackingDriver::follow(const Scope& scope) {
  auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  return follower_.follow(scope, std::move(context->match));
}

Result<void> ConnectionTrackingDriver::unfollow(const Scope& scope) {
  follower_.unfollow(scope);
  return {};
}

Result<std::vector<Record>> ConnectionTrackingDriver::snapshot(const Scope& scope) {
  const auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  auto connections = entries_of(*context);
  if (!connections) return tl::unexpected(connections.error());
  follower_.remember(scope, *connections);
  add_windows(scope, *connections);
  std::vector<Record> records;
  records.reserve(connections->size());
  for (const auto& connection : *connections) records.push_back(record_of(connection));
  return records;
}

Result<std::vector<Record>> ConnectionTrackingDriver::read(const Scope& scope, const std::vector<Key>& keys) {
  const auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  const auto kernel = kernel_keys(*context, keys);
  if (!kernel) return tl::unexpected(kernel.error());
  const auto found = conntrack_.table().get(*kernel);
  if (!found) return tl::unexpected(found.error());
  std::vector<Record> records;
  std::vector<Connection> there;
  std::vector<std::size_t> place;  // of each in records
  for (std::size_t i = 0; i < keys.size(); ++i) {
    records.push_back({keys[i], {}, true, 0});
    const auto& entry = found->at(i);
    std::string vn = decode_key(keys[i])->vn_name;
    if (!entry || !context->match.takes(vn, entry->original, entry->reply)) continue;
    there.push_back({std::move(vn), *entry});
    place.push_back(i);
  }
  add_windows(scope, there);
  for (std::size_t i = 0; i < there.size(); ++i) records[place[i]] = record_of(there[i]);
  return records;
}

WindowAccess ConnectionTrackingDriver::only_if_available(WindowAccess access) {
  if (access.windows == nullptr) return access;
  if (const auto can = access.windows->available(); !can) {
    access.why_not = can.error().message;
    access.windows = nullptr;
  }
  return access;
}

// What cannot be read is left out: its record is liberal.
void ConnectionTrackingDriver::add_windows(const Scope& scope, std::vector<Connection>& connections) {
  if (access_.windows == nullptr || barriers_.failed(scope)) return;
  std::vector<ConntrackKey> keys;
  std::vector<Connection*> asked;
  for (auto& connection : connections) {
    if (!connection.entry.tcp) continue;
    keys.push_back(netlink::key_of(connection.entry));
    asked.push_back(&connection);
  }
  const auto found = access_.windows->read(keys);
  if (!found) return;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (found->at(i) && is_tellable(*found->at(i), *asked[i]->entry.tcp)) asked[i]->window = found->at(i);
  }
}

// Once the barrier has failed to go up, no window of the scope is told: the destination takes it liberally.
Result<void> ConnectionTrackingDriver::raise_barrier(const Scope& scope, std::uint32_t timeout_ms) {
  if (access_.windows == nullptr) return {};
  const auto raised =
      barriers_.raise(*access_.barrier, scope, follower_.ends(scope), std::chrono::milliseconds(timeout_ms));
  if (!raised || !follower_.tracks()) follower_.suspect_windows(scope);
  follower_.set_stopped(scope, raised.has_value());
  return {};
}

Result<void> ConnectionTrackingDriver::lower_barrier(const Scope& scope) {
  if (access_.windows == nullptr) return {};
  follower_.set_stopped(scope, false);
  return barriers_.lower(*access_.barrier, scope);
}

// The subject runs here already: windows of rounds before the final one may be outdated.
Result<void> ConnectionTrackingDriver::activate(const Scope& scope, const std::vector<Key>& keys) {
  if (access_.windows == nullptr || scope.conflict_rule != common::CONFLICT_RULE_MOVED) return {};
  const auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  std::vector<Key> strict;
  bool knows = false;  // a driver that was restarted knows none
  for (const auto& key : keys) {
    const Held* held = ledger_.find(context->name, key);
    knows = knows || held != nullptr;
    if (held != nullptr && held->exact) strict.push_back(key);
  }
  if (!knows) strict = keys;
  const auto kernel = kernel_keys(*context, strict);
  if (!kernel) return tl::unexpected(kernel.error());
  const auto found = conntrack_.table().get(*kernel);
  if (!found) return tl::unexpected(found.error());
  std::vector<netlink::ConntrackRequest> requests;
  for (auto entry : *found) {
    if (!entry || !entry->tcp) continue;
    entry->tcp->flags_original |= IP_CT_TCP_FLAG_BE_LIBERAL;
    entry->tcp->flags_reply |= IP_CT_TCP_FLAG_BE_LIBERAL;
    entry->timeout = 0;  // unchanged
    requests.push_back({ConntrackOperation::Update, *entry});
  }
  const auto errors = conntrack_.table().apply(requests);
  if (!errors) return tl::unexpected(errors.error());
  for (const auto& key : strict) {
    if (Held* held = ledger_.find(context->name, key)) held->exact = false;
  }
  return {};
}

Result<std::vector<InstallResult>> ConnectionTrackingDriver::install(const Scope& scope,
                                                                     const std::vector<InstallItem>& items) {
  const auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  return Installer(conntrack_.table(), config_, access_, ledger_, scope, context->name, *context->zones, context->match,
                   clock_.now())
      .install(items);
}

Result<void> ConnectionTrackingDriver::settle(const Scope& scope, const std::vector<Key>& keys) {
  const auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  const auto kernel = kernel_keys(*context, keys);
  if (!kernel) return tl::unexpected(kernel.error());
  const Instant now = clock_.now();
  std::vector<ConntrackKey> asked;
  std::vector<Held> held;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto known = ledger_.take(context->name, keys[i]);
    if (!known || known->given <= known->recorded) continue;
    asked.push_back(kernel->at(i));
    held.push_back(*known);
  }
  const auto found = conntrack_.table().get(asked);
  if (!found) return tl::unexpected(found.error());
  std::vector<netlink::ConntrackRequest> requests;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (!found->at(i)) continue;
    // A timeout that does not run down from what was given was set by a packet.
    const auto elapsed = std::chrono::duration_cast<std::chrono::seconds>(now - held[i].since).count();
    const std::int64_t difference = found->at(i)->timeout - (std::int64_t{held[i].given} - elapsed);
    if (difference > kTimeoutTolerance || difference < -kTimeoutTolerance) continue;
    ConntrackEntry entry = *found->at(i);
    entry.timeout = held[i].recorded;
    requests.push_back({ConntrackOperation::SetTimeout, entry});
  }
  const auto errors = conntrack_.table().apply(requests);
  if (!errors) return tl::unexpected(errors.error());
  return {};
}

Result<std::uint64_t> ConnectionTrackingDriver::remove(const Scope& scope, const std::vector<Key>& keys) {
  const auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  const auto kernel = kernel_keys(*context, keys);
  if (!kernel) return tl::unexpected(kernel.error());
  const auto found = conntrack_.table().get(*kernel);
  if (!found) return tl::unexpected(found.error());
  std::vector<ConntrackEntry> entries;
  for (const auto& entry : *found) {
    if (entry) entries.push_back(*entry);
  }
  auto deleted = delete_entries(entries);
  if (!deleted) return deleted;
  for (const auto& key : keys) ledger_.take(context->name, key);
  return deleted;
}

Result<std::uint64_t> ConnectionTrackingDriver::sweep(const Scope& scope) {
  const auto context = context_of(scope);
  if (!context) return tl::unexpected(context.error());
  const auto connections = entries_of(*context);
  if (!connections) return tl::unexpected(connections.error());
  std::vector<ConntrackEntry> entries;
  for (const auto& connection : *connections) entries.push_back(connection.entry);
  return delete_entries(entries);
}

}  // namespace

std::unique_ptr<Driver> make_connection_tracking_driver(netlink::Conntrack& conntrack, ConnectionTrackingConfig config,
                                                        const Clock& clock, WindowAccess access) {
  return std::make_unique<ConnectionTrackingDriver>(conntrack, std::move(config), clock, std::move(access));
}

}  // namespace sami::state
