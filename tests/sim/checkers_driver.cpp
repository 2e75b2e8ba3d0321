// Checks around driver calls (rules 2, 3, 4, 5, 6, 7, 9) and at the end of a run (rules 2, 3, 8).
#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/checkers.h"
#include "tests/sim/world.h"

namespace sami::sim {

namespace {
namespace call_of = protocol::driver_call;
namespace journal = protocol::journal;

bool writes(const protocol::DriverCall& call) {
  return std::holds_alternative<call_of::Install>(call.call) || std::holds_alternative<call_of::Remove>(call.call) ||
         std::holds_alternative<call_of::Sweep>(call.call) || std::holds_alternative<call_of::Activate>(call.call) ||
         std::holds_alternative<call_of::Settle>(call.call);
}
std::string name_of(const std::string& context) { return context.empty() ? "default" : context; }
std::uint64_t tables_of(const Context& context) { return context.connections.size() + context.counters.size(); }
}  // namespace

// ---- rule 7

void Checker::epochs_written(const std::string& host, const std::vector<JournalWrite>& writes) {
  constexpr std::string_view prefix = "epoch/";
  for (const auto& write : writes) {
    if (write.key.compare(0, prefix.size(), prefix) != 0 || !write.value) continue;
    journal::EpochRecord record;
    if (!record.ParseFromString(*write.value)) broken(7, host + " journals garbage under " + write.key);
    std::uint64_t& highest = epochs_[host + "/" + write.key.substr(prefix.size())];
    if (record.epoch() < highest)
      broken(7, fmt::format("{} lowers {} from {} to {}", host, write.key, highest, record.epoch()));
    highest = record.epoch();
  }
}

void Checker::agent_stepped(const std::string& host, const protocol::SoaStep& step) {
  epochs_written(host, step.journal);
  for (const auto& call : step.calls) check_call_epoch(host, call);
}

void Checker::check_call_epoch(const std::string& host, const protocol::DriverCall& call) const {
  if (!writes(call)) return;
  const auto highest = epochs_.find(host + "/" + call.scope->subject.id());
  if (highest == epochs_.end())
    broken(7, host + " writes for " + call.scope->subject.id() + " and has journaled no epoch");
  if (call.scope->epoch < highest->second) {
    broken(7, fmt::format("{} writes for {} with epoch {}, and has journaled {}", host, call.scope->subject.id(),
                          call.scope->epoch, highest->second));
  }
}

// ---- rule 9

void Checker::call_begins(const std::string& host, const protocol::DriverCall& call) {
  if (!writes(call)) return;
  auto [entry, first] = running_.try_emplace(host + "/" + call.state_class, call.scope->migration_id);
  if (!first)
    broken(9, fmt::format("two writers of {} on {} at once: {} and {}", call.state_class, host, entry->second,
                          call.scope->migration_id));
}

void Checker::call_ends(const std::string& host, const protocol::DriverCall& call) {
  if (writes(call)) running_.erase(host + "/" + call.state_class);
}

void Checker::agent_died(const std::string& host) {
  std::erase_if(running_, [&](const auto& entry) { return entry.first.compare(0, host.size() + 1, host + "/") == 0; });
}

// ---- rules 2 to 6

std::optional<Before> Checker::before_call(const std::string& host, const protocol::DriverCall& call) const {
  if (!writes(call)) return std::nullopt;
  const auto& contexts = world_.agent(host).kernel.contexts;
  const auto found = contexts.find(name_of(call.scope->context));
  if (found == contexts.end()) return std::nullopt;
  return Before{found->first, found->second};
}

void Checker::after_call(const std::string& host, const protocol::DriverCall& call, const std::optional<Before>& before,
                         const protocol::DriverReply& reply) {
  if (!before) return;
  const Context& after = world_.agent(host).kernel.contexts.at(before->context);
  if (tables_of(after) + tables_of(before->tables) == 0) return;
  check_removals(host, call, *before, after);
  if (call.state_class == counters_class) return check_counters(host, call, *before, after, reply);
  check_installs(host, call, *before, after, reply);
}

// The VM is where this migration cannot know: it finds its records where this migration left them.
bool Checker::went_on(const Migration& migration) const {
  const std::string& place = world_.servers[world_.vm(migration.subject().id())->server].name;
  if (migration.outcome() == common::v1::OUTCOME_AT_DESTINATION) return place != migration.destination_place();
  return migration.outcome() == common::v1::OUTCOME_AT_SOURCE && place != migration.source_place();
}

bool Checker::was_expected(const Migration& migration, const Flow& flow) const {
  const Expected* known = expected(migration);
  return known != nullptr && std::any_of(known->flows.begin(), known->flows.end(),
                                         [&](const Expectation& e) { return &world_.flows[e.flow] == &flow; });
}

bool Checker::stands_at_owner(const Migration& migration, const common::v1::Transfer& plan,
                              const Connection& connection) const {
  const bool there = migration.outcome() == common::v1::OUTCOME_AT_DESTINATION;
  const std::string context = name_of(there ? plan.destination_context() : plan.source_context());
  const auto& table =
      world_.agent(there ? plan.destination_host() : plan.source_host()).kernel.contexts.at(context).connections;
  const auto entry = table.find(key_of(connection));
  return entry != table.end() && entry->second.translation == connection.translation;
}

// Nothing of a living flow is removed where its path goes, nothing foreign anywhere, and a destination removes only
// what this migration, or one that it supersedes, installed.
void Checker::check_removals(const std::string& host, const protocol::DriverCall& call, const Before& before,
                             const Context& after) const {
  const Migration* migration = find(call.scope->migration_id);
  const auto index = static_cast<int>(call.scope->transfer);
  if (migration == nullptr || index >= migration->transfers_size())
    broken(5, host + " writes for a migration that does not exist");
  const common::v1::Transfer& plan = migration->transfers(index).plan();
  const Hop here{host, before.context};
  const bool destination = plan.destination_host() == host && name_of(plan.destination_context()) == before.context;
  for (const auto& [key, connection] : before.tables.connections) {
    if (after.connections.contains(key)) continue;
    const std::string what = fmt::format("{} of {} removes {} from {}/{}", call.scope->migration_id,
                                         call.scope->subject.id(), readable(key), host, before.context);
    if (!in_scope(*call.scope, connection.first, connection.second)) broken(5, what + ", which is not the subject's");
    const auto flow = std::find_if(world_.flows.begin(), world_.flows.end(),
                                   [&, wanted = key](const Flow& f) { return key_of(f.connection) == wanted; });
    if (flow != world_.flows.end() && flow->unchecked) continue;
    if (destination && connection.installed_by.empty()) broken(5, what + ", which stood there before");
    if (destination && connection.installed_by != call.scope->migration_id) {
      const Migration* installer = find(connection.installed_by);
      if (installer == nullptr || installer->subject().id() != call.scope->subject.id())
        broken(5, what + ", which another migration installed");
    }
    if (flow == world_.flows.end() || !flow->alive || flow->unchecked || migration->outcome_by_operator()) continue;
    const auto hops = world_.path(*flow);
    if (std::find(hops.begin(), hops.end(), here) == hops.end()) continue;
    const auto& feedback = migration->transfers(index).feedback();
    const bool said_so = std::any_of(feedback.begin(), feedback.end(),
                                     [](const auto& f) { return f.result() == common::v1::CLASS_RESULT_FAILED; });
    if (went_on(*migration) &&
        (said_so || stands_at_owner(*migration, plan, flow->connection) || !was_expected(*migration, *flow)))
      continue;
    const bool retained = plan.disposition() == common::v1::DISPOSITION_COPY_AND_RETAIN;
    broken(retained ? 3 : 2, what + ", and the flow lives and crosses it" + (retained ? " (to be retained)" : ""));
  }
}

void Checker::check_installs(const std::string& host, const protocol::DriverCall& call, const Before& before,
                             const Context& after, const protocol::DriverReply& reply) const {
  for (const auto& [key, connection] : after.connections) {
    const auto old = before.tables.connections.find(key);
    const bool changed = old == before.tables.connections.end() || encode(old->second) != encode(connection);
    if (!changed) continue;
    const std::string what = fmt::format("{} of {} {} {} in {}/{}", call.scope->migration_id, call.scope->subject.id(),
                                         old == before.tables.connections.end() ? "installs" : "alters", readable(key),
                                         host, before.context);
    if (!in_scope(*call.scope, connection.first, connection.second)) broken(5, what + ", which is not the subject's");
    if (old == before.tables.connections.end() || old->second.translation == connection.translation) continue;
    if (old->second.installed_by.empty() && call.scope->conflict_rule == common::v1::CONFLICT_RULE_PLANNED) {
      broken(6, what + ": another one stood there, and the move was planned");
    }
    if (old->second.installed_by.empty() && world_.engine.now - old->second.born > std::chrono::minutes(1)) {
      broken(6, what + ": the one that stood there is older than the move");
    }
  }
  const auto* install = std::get_if<call_of::Install>(&call.call);
  const auto* installed = std::get_if<protocol::Installed>(&reply.result);
  const auto* results = installed == nullptr ? nullptr : &installed->results;
  if (install == nullptr || results == nullptr || results->size() != install->items.size()) return;
  for (std::size_t i = 0; i < results->size(); ++i) {
    const auto& item = install->items[i];
    if ((*results)[i].outcome != state::InstallOutcome::Adopted || item.only_if_absent || item.record.gone) continue;
    Connection wanted;
    const auto stands = after.connections.find(item.record.key);
    if (stands == after.connections.end() || !decode(item.record.body, wanted)) continue;
    if (stands->second.translation != wanted.translation)
      broken(6, readable(item.record.key) + " is adopted on " + host + ", and it is another one");
  }
}

// What is moved in is assigned, never added; what was counted here is left alone.
void Checker::check_counters(const std::string& host, const protocol::DriverCall& call, const Before& before,
                             const Context& after, const protocol::DriverReply& reply) const {
  const auto* install = std::get_if<call_of::Install>(&call.call);
  for (const auto& [key, counter] : before.tables.counters) {
    const auto now = after.counters.find(key);
    const bool mine = key == counter_key(world_.vm(call.scope->subject.id())->address);
    if (!mine && (now == after.counters.end() || now->second.total() != counter.total()))
      broken(5, host + " alters a counter of another subject");
    if (now == after.counters.end()) continue;
    if (std::holds_alternative<call_of::Settle>(call.call) && now->second.total() != counter.total())
      broken(4, host + ": settling changes a sum");
    if (install != nullptr && now->second.own != counter.own)
      broken(4, host + ": what was counted there is altered in place");
  }
  const auto* installed = std::get_if<protocol::Installed>(&reply.result);
  const auto* results = installed == nullptr ? nullptr : &installed->results;
  if (install == nullptr || results == nullptr || results->size() != install->items.size()) return;
  for (std::size_t i = 0; i < results->size(); ++i) {
    const auto& item = install->items[i];
    const auto outcome = (*results)[i].outcome;
    if (item.record.gone || (outcome != state::InstallOutcome::Installed && outcome != state::InstallOutcome::Updated))
      continue;
    const auto now = after.counters.find(item.record.key);
    std::uint64_t wanted = 0;
    for (std::size_t byte = item.record.body.size() - 8; byte < item.record.body.size(); ++byte)
      wanted = (wanted << 8) | static_cast<unsigned char>(item.record.body[byte]);
    const auto moved = now == after.counters.end() ? std::map<std::uint64_t, std::uint64_t>::const_iterator{}
                                                   : now->second.moved.find(call.scope->epoch);
    if (now == after.counters.end() || moved == now->second.moved.end() || moved->second != wanted) {
      broken(4,
             fmt::format("{}: {} was moved in, and another value stands as epoch {}", host, wanted, call.scope->epoch));
    }
  }
}

// ---- the end

std::string Checker::leftovers() const {
  std::string what;
  const auto add = [&](const std::string& more) { what += what.empty() ? more : "; " + more; };
  for (const auto& [id, migration] : migrations_) {
    if (!protocol::is_final(migration.state()))
      add(fmt::format("{} is {}", id, protocol::to_string(migration.state())));
  }
  if (!world_.master->up() || !world_.entity->up()) add("a daemon is down");
  if (world_.entity->up() && !world_.entity->machine()->moves().empty()) add("the gate has open moves");
  if (!world_.hypervisor->quiet()) add("a VM is not where the TDE believes");
  for (const auto& agent : world_.agents) {
    if (!agent->up()) {
      add(agent->name + " is down");
      continue;
    }
    for (const auto& view : agent->machine()->transfers()) {
      add(fmt::format("{} has transfer {}/{} open as {} in {}", agent->name, view.status.transfer().migration_id(),
                      view.status.transfer().transfer(),
                      static_cast<int>(view.status.role()) == 1 ? "source" : "destination",
                      if_m_a::v1::TransferState_Name(view.status.state())));
    }
    if (!agent->idle()) add(agent->name + " has driver calls under way");
    if (agent->connections->followed() + agent->counters->followed() > 0) add(agent->name + " follows changes");
    for (const auto& [key, value] : agent->journal) {
      if (key != "agent" && key.compare(0, 6, "epoch/") != 0) add(agent->name + " has " + key + " in its journal");
    }
  }
  if (const std::string barrier = barriers(); !barrier.empty()) add(barrier);
  for (const auto& [key, value] : world_.entity->journal) add("the gate has " + key + " in its journal");
  for (const auto& [key, value] : world_.master->journal) {
    journal::SubjectRecord record;
    if (key.compare(0, 8, "subject/") != 0 || !record.ParseFromString(value)) continue;
    if (!record.open_migration().empty()) add("the SOM says " + record.open_migration() + " is open");
  }
  return what;
}

std::string Checker::barriers() const {
  for (const auto& agent : world_.agents) {
    for (const auto& [context, tables] : agent->kernel.contexts) {
      for (const auto& [subject, until] : tables.barriers) {
        if (until > world_.engine.now) return fmt::format("{}/{} has a barrier for {}", agent->name, context, subject);
      }
    }
  }
  return {};
}

// What stands where its path does not go must be known as a holder's, so that the next migration collects it.
void Checker::at_end() const {
  std::set<std::pair<std::string, Hop>> holders;  // subject, where
  for (const auto& [key, value] : world_.master->journal) {
    journal::SubjectRecord record;
    if (key.compare(0, 8, "subject/") != 0 || !record.ParseFromString(value)) continue;
    for (const auto& holder : record.holders())
      holders.insert({record.id(), {holder.host(), name_of(holder.context())}});
  }
  for (const auto& agent : world_.agents) {
    for (const auto& [context, tables] : agent->kernel.contexts) {
      for (const auto& [key, connection] : tables.connections) {
        if (!connection.installed_by.empty() && find(connection.installed_by) == nullptr)
          broken(5, "an entry of no migration");
        check_left(Hop{agent->name, context}, key, connection, holders);
      }
    }
  }
}

void Checker::check_left(const Hop& here, const state::Key& key, const Connection& connection,
                         const std::set<std::pair<std::string, Hop>>& holders) const {
  if (world_.engine.settings.pickup) return;  // packets of the old path make entries after every sweep
  for (const auto& flow : world_.flows) {
    if (key_of(flow.connection) != key || flow.unchecked || connection.translation != flow.connection.translation)
      continue;
    const auto hops = world_.path(flow);
    if (std::find(hops.begin(), hops.end(), here) != hops.end() || world_.hypervisor->ran_unnoticed(flow.vm)) continue;
    if (flow.peer_vm >= 0 && world_.hypervisor->ran_unnoticed(static_cast<std::size_t>(flow.peer_vm))) continue;
    if (holders.contains({world_.vms[flow.vm].name, here})) continue;
    if (flow.peer_vm >= 0 && holders.contains({world_.vms[static_cast<std::size_t>(flow.peer_vm)].name, here}))
      continue;
    broken(3, fmt::format("{} is left in {}/{}, where its path does not go, and the SOM does not know it as a holder",
                          readable(key), here.host, here.context));
  }
}

}  // namespace sami::sim
