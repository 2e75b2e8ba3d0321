#include "tests/sim/checkers.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/world.h"

namespace sami::sim {

namespace {
namespace journal = protocol::journal;
constexpr auto at_source = common::v1::OUTCOME_AT_SOURCE;
constexpr auto at_destination = common::v1::OUTCOME_AT_DESTINATION;

std::string name_of(const std::string& context) { return context.empty() ? "default" : context; }

bool carries(const journal::Migration& migration) {
  return migration.state() == journal::RELEASING || migration.state() == journal::DONE ||
         migration.state() == journal::DONE_WITH_LOSS;
}
bool goes_back(const journal::Migration& migration) {
  return migration.state() == journal::ROLLING_BACK || migration.state() == journal::ROLLED_BACK;
}
bool stays(const common::v1::Transfer& transfer) {
  return transfer.source_host() == transfer.destination_host() &&
         name_of(transfer.source_context()) == name_of(transfer.destination_context());
}

// One step of the machine may take several transitions.
bool reaches(journal::MigrationState from, journal::MigrationState to, int transitions) {
  if (protocol::may_follow(from, to)) return true;
  if (transitions == 1) return false;
  for (int between = journal::MigrationState_MIN; between <= journal::MigrationState_MAX; ++between) {
    const auto next = static_cast<journal::MigrationState>(between);
    if (protocol::may_follow(from, next) && reaches(next, to, transitions - 1)) return true;
  }
  return false;
}
}  // namespace

void Checker::broken(int rule, const std::string& sentence) const { throw Broken{rule, sentence}; }

const journal::Migration* Checker::find(const std::string& id) const {
  const auto found = migrations_.find(id);
  return found == migrations_.end() ? nullptr : &found->second;
}

bool Checker::open_migration(const std::string& subject) const {
  return std::any_of(migrations_.begin(), migrations_.end(), [&](const auto& entry) {
    return entry.second.subject().id() == subject && !protocol::is_final(entry.second.state());
  });
}

// ---- the master

void Checker::master_stepped(const protocol::SomStep& step) {
  constexpr std::string_view prefix = "migration/";
  for (const auto& write : step.journal) {
    if (write.key.compare(0, prefix.size(), prefix) != 0 || !write.value) continue;
    Migration after;
    if (!after.ParseFromString(*write.value)) broken(1, "the journal of the SOM has garbage under " + write.key);
    Migration& known = migrations_[after.id()];
    const Migration before = std::move(known);
    known = after;
    migration_written(before, after);
  }
  for (const auto& [to, message] : step.to_tdes) {
    if (!message.has_verdict()) continue;
    const Migration* migration = find(message.verdict().migration_id());
    if (migration == nullptr || migration->vote() != message.verdict().vote()) {
      broken(1, "a verdict is sent that the SOM's journal does not hold: " + message.verdict().migration_id());
    }
  }
}

void Checker::migration_written(const Migration& before, const Migration& after) {
  if (before.id() == after.id() && before.state() != after.state() && !reaches(before.state(), after.state(), 4)) {
    broken(8, fmt::format("{} goes from {} to {}, which the table does not have", after.id(),
                          protocol::to_string(before.state()), protocol::to_string(after.state())));
  }
  if (before.vote() != common::v1::VOTE_UNSPECIFIED && before.vote() != after.vote()) {
    broken(1, after.id() + " takes its vote back");
  }
  if (before.id().empty()) check_order(after);
  if (before.outcome() != after.outcome()) outcome_at_[after.id()] = world_.engine.now;
  if (before.outcome() != after.outcome() || before.state() != after.state()) check_outcome(after);
  if (before.vote() != common::v1::VOTE_GO && after.vote() == common::v1::VOTE_GO && !after.force()) check_go(after);
  if (before.state() == after.state() || !protocol::is_final(after.state())) return;
  if (world_.engine.tracing())
    world_.engine.trace(after.id() + " ends: " + std::string(protocol::to_string(after.state())));
  world_.engine.record("end", static_cast<std::uint64_t>(after.state()));
  Vm* vm = world_.vm(after.subject().id());
  if (after.state() == journal::DONE) check_done(after);
  if (after.state() != journal::DONE || after.conflict_rule() == common::v1::CONFLICT_RULE_MOVED) {
    if (vm != nullptr && after.state() != journal::ROLLED_BACK) vm->counters_disturbed = true;
  }
  if (after.state() == journal::DONE_WITH_LOSS && after.missing().empty()) {
    broken(8, after.id() + " is DONE_WITH_LOSS and does not say what is missing");
  }
}

// Rule 1: an older fact is not news.
void Checker::check_order(const Migration& migration) const {
  const Move* move = world_.hypervisor->find(migration.notification_id());
  for (const auto& [id, other] : migrations_) {
    if (move == nullptr || id == migration.id() || other.subject().id() != migration.subject().id()) continue;
    const Move* earlier = world_.hypervisor->find(other.notification_id());
    if (earlier != nullptr && earlier->began > move->began)
      broken(1, fmt::format("{} ({}) begins after {} ({}), and had happened before it", migration.id(), move->id, id,
                            earlier->id));
  }
}

// Rule 1: the VM's true place, or an operator's word.
void Checker::check_outcome(const Migration& migration) const {
  if (migration.outcome() == common::v1::OUTCOME_UNSPECIFIED) {
    if (carries(migration) || goes_back(migration)) {
      broken(1, migration.id() + " is " + std::string(protocol::to_string(migration.state())) + " without an outcome");
    }
    return;
  }
  if ((carries(migration) && migration.outcome() != at_destination) ||
      (goes_back(migration) && migration.outcome() != at_source)) {
    broken(1, migration.id() + " acts against its outcome");
  }
  if (migration.outcome_by_operator()) {
    if (!resolved_.contains(migration.id())) broken(1, migration.id() + " was resolved by nobody");
    return;
  }
  const auto same = [&](const Move& move) {
    if (world_.vms[move.vm].name != migration.subject().id()) return false;
    if (migration.outcome() == at_destination) {
      return move.phase == Phase::AtDestination && world_.servers[move.to].name == migration.destination_place();
    }
    const bool named = move.id == migration.notification_id() ||
                       std::any_of(migration.aliases().begin(), migration.aliases().end(),
                                   [&](const auto& alias) { return alias.notification_id() == move.id; });
    return move.phase == Phase::AtSource && named;
  };
  const auto& moves = world_.hypervisor->moves();
  if (!std::any_of(moves.begin(), moves.end(), [&](const auto& entry) { return same(entry.second); })) {
    broken(1, fmt::format("{} took {} for the outcome, and the VM was never there", migration.id(),
                          migration.outcome() == at_source ? "AT_SOURCE" : "AT_DESTINATION"));
  }
}

void Checker::operator_resolved(const std::string& migration_id) { resolved_.insert(migration_id); }

// ---- what a vote and an end promise

const Checker::Expected* Checker::expected(const Migration& migration) const {
  const auto found = expected_.find(migration.notification_id());
  return found == expected_.end() ? nullptr : &found->second;
}

void Checker::expect(const Move& move) {
  Expected& expected = expected_[move.id] = {};
  expected.when = world_.engine.now;
  const Vm& vm = world_.vms[move.vm];
  const common::v1::Subject subject = world_.subject(vm);
  // Where packets in the middle of a flow make entries, a VM that outruns its migrations leaves wrong ones everywhere.
  bool outruns = false;
  for (const auto& [id, migration] : migrations_) {
    if (!world_.engine.settings.pickup || migration.subject().id() != vm.name || protocol::is_final(migration.state()))
      continue;
    if (migration.notification_id() == move.id) continue;
    expected_.erase(migration.notification_id());
    outruns = true;
  }
  if (outruns) return;
  for (const auto& transfer : move.transfers) {
    if (transfer.leftover()) continue;  // what it brings is not needed there
    state::Scope scope;
    scope.subject = subject;
    scope.peers = transfer.peers();
    const Context& tables = world_.agent(transfer.source_host()).kernel.contexts.at(name_of(transfer.source_context()));
    for (std::size_t i = 0; i < world_.flows.size(); ++i) {
      const Flow& flow = world_.flows[i];
      const Connection& c = flow.connection;
      if (!flow.alive || flow.unchecked || !in_scope(scope, c.first, c.second)) continue;
      const auto entry = tables.connections.find(key_of(c));
      if (entry == tables.connections.end() || entry->second.translation != c.translation) continue;
      expected.flows.push_back({i, entry->second.version, transfer.source_host(), name_of(transfer.source_context()),
                                transfer.destination_host(), name_of(transfer.destination_context())});
    }
    const auto counter = tables.counters.find(counter_key(vm.address));
    if (!transfer.peers().include().empty() || counter == tables.counters.end()) continue;
    if (!expected.counter_host.empty()) continue;
    expected.counter = counter->second.total();
    expected.counter_host = transfer.destination_host();
    expected.counter_context = name_of(transfer.destination_context());
  }
}

// Every flow that was alive at the pause and is still, is at the destination, as it was or newer.
void Checker::check_in_place(const Migration& migration, const std::string& when, bool exact) const {
  const Expected* known = expected(migration);
  if (known == nullptr) return;
  for (const auto& e : known->flows) {
    const Flow& flow = world_.flows[e.flow];
    if (!flow.alive || flow.unchecked || rebooted_during_.contains(migration.id() + "/" + e.to_host)) continue;
    const auto hops = world_.path(flow);
    if (!exact && std::find(hops.begin(), hops.end(), Hop{e.to_host, e.to_context}) == hops.end()) continue;
    const Context& tables = world_.agent(e.to_host).kernel.contexts.at(e.to_context);
    const auto entry = tables.connections.find(key_of(flow.connection));
    const std::string what = fmt::format("{} {}: {} {} of {}", migration.id(), when, readable(key_of(flow.connection)),
                                         "{}", e.to_host + "/" + e.to_context);
    if (entry == tables.connections.end()) broken(2, fmt::format(fmt::runtime(what), "is missing in the table"));
    if (entry->second.translation != flow.connection.translation)
      broken(6, fmt::format(fmt::runtime(what), "stands with another translation in the table"));
    // Whatever arrives after the outcome never updates what stands there.
    const bool whole = exact || (migration.vote() == common::v1::VOTE_GO &&
                                 migration.conflict_rule() == common::v1::CONFLICT_RULE_PLANNED);
    // What stood there before is adopted as it is (state/driver.h), however old.
    const bool ours = entry->second.installed_by == migration.id();
    if (whole && ours && entry->second.version < e.version)
      broken(2, fmt::format(fmt::runtime(what), "is older than at the pause in the table"));
  }
}

void Checker::check_go(const Migration& migration) const {
  const Move* move = world_.hypervisor->find(migration.notification_id());
  if (move == nullptr || move->phase != Phase::Paused) return;
  check_in_place(migration, "has voted GO", true);
}

void Checker::check_done(const Migration& migration) const {
  const Vm* vm = world_.vm(migration.subject().id());
  if (vm == nullptr || migration.force()) return;
  check_sum(migration, *vm);
  if (!vm->running || world_.servers[vm->server].name != migration.destination_place()) return;  // it went on
  if (migration.outcome_by_operator()) return;
  check_in_place(migration, "is DONE", false);
  const auto taken = outcome_at_.find(migration.id());
  if (taken == outcome_at_.end() || vm->arrived > taken->second) return;  // it was elsewhere meanwhile
  for (const auto& transfer : migration.transfers()) {
    if (transfer.plan().leftover() || stays(transfer.plan())) continue;
    if (transfer.plan().disposition() == common::v1::DISPOSITION_MOVE)
      check_source_is_clean(migration, transfer.plan());
  }
}

// Rule 3: what moved is not at the source any more, unless the flow's path crosses it.
void Checker::check_source_is_clean(const Migration& migration, const common::v1::Transfer& transfer) const {
  const Hop source{transfer.source_host(), name_of(transfer.source_context())};
  if (rebooted_during_.contains(migration.id() + "/" + source.host)) return;
  const Context& tables = world_.agent(source.host).kernel.contexts.at(source.context);
  state::Scope scope;
  scope.subject = migration.subject();
  scope.peers = transfer.peers();
  for (const auto& [key, connection] : tables.connections) {
    if (!in_scope(scope, connection.first, connection.second)) continue;
    const auto flow = std::find_if(world_.flows.begin(), world_.flows.end(),
                                   [&, wanted = key](const Flow& f) { return key_of(f.connection) == wanted; });
    if (flow != world_.flows.end()) {
      if (flow->unchecked) continue;
      const auto hops = world_.path(*flow);
      if (std::find(hops.begin(), hops.end(), source) != hops.end()) continue;
    }
    broken(3, fmt::format("{} is DONE and {} is still at its source {}/{}", migration.id(), readable(key), source.host,
                          source.context));
  }
}

// Rule 4, over the whole way: nothing counted before the pause is lost, nothing is counted twice.
void Checker::check_sum(const Migration& migration, const Vm& vm) const {
  const Expected* known = expected(migration);
  if (known == nullptr || known->counter_host.empty() || vm.counters_disturbed) return;
  if (world_.servers[vm.server].name != migration.destination_place()) return;
  for (const auto& transfer : migration.transfers()) {
    for (const auto& feedback : transfer.feedback()) {
      if (feedback.state_class() == counters_class && feedback.result() != common::v1::CLASS_RESULT_CARRIED) return;
    }
    if (rebooted_during_.contains(migration.id() + "/" + transfer.plan().destination_host())) return;
  }
  const Context& tables = world_.agent(known->counter_host).kernel.contexts.at(known->counter_context);
  const auto counter = tables.counters.find(counter_key(vm.address));
  const std::uint64_t total = counter == tables.counters.end() ? 0 : counter->second.total();
  if (total > vm.packets)
    broken(4, fmt::format("{}: {} counts {} packets of {}, which sent {}", migration.id(), known->counter_host, total,
                          vm.name, vm.packets));
  const bool whole =
      migration.vote() == common::v1::VOTE_GO && migration.conflict_rule() == common::v1::CONFLICT_RULE_PLANNED;
  if (whole && total < known->counter)
    broken(4, fmt::format("{}: {} counts {} packets of {}, and had {} at the pause", migration.id(),
                          known->counter_host, total, vm.name, known->counter));
}

// ---- what peers see

void Checker::agent_sees(const std::string& host, const if_m_a::v1::MasterMessage& message) {
  if (!message.has_release() && !message.has_rollback()) return;
  const std::string& id = message.has_release() ? message.release().transfer().migration_id()
                                                : message.rollback().transfer().migration_id();
  const Migration* migration = find(id);
  if (message.has_release() && (migration == nullptr || !carries(*migration))) {
    broken(1, fmt::format("{} sees a Release of {}, which the SOM's journal has not as RELEASING", host, id));
  }
  if (message.has_rollback() && (migration == nullptr || !goes_back(*migration))) {
    broken(1, fmt::format("{} sees a Rollback of {}, which the SOM's journal has not as ROLLING_BACK", host, id));
  }
}

void Checker::gate_sees(const if_m_t::v1::MasterMessage& message) {
  if (!message.has_verdict()) return;
  const Migration* migration = find(message.verdict().migration_id());
  if (migration == nullptr || migration->vote() != message.verdict().vote()) {
    broken(1, "the gate sees a verdict that the SOM's journal does not hold: " + message.verdict().migration_id());
  }
}

void Checker::gate_stepped(const protocol::GateStep& step) {
  if (world_.engine.settings.continue_without_verdict) return;
  for (const auto& instruction : step.instructions) {
    if (instruction.kind != protocol::HypervisorInstruction::Kind::Continue) continue;
    const auto entry = world_.entity->journal.find("gate/" + instruction.notification_id);
    journal::GateRecord record;
    if (entry == world_.entity->journal.end() || !record.ParseFromString(entry->second) ||
        record.vote() != common::v1::VOTE_GO) {
      broken(1, "the gate says continue to " + instruction.notification_id + " without a GO in its journal");
    }
  }
}

// A host that lost its tables after the Release was on its way cannot be whole any more.
void Checker::rebooted(const std::string& host) {
  for (auto& vm : world_.vms) vm.counters_disturbed = true;
  for (const auto& [id, migration] : migrations_) {
    if (carries(migration) || migration.state() == journal::READY || migration.state() == journal::SWITCHING) {
      rebooted_during_.insert(id + "/" + host);
    }
  }
  // What was to be kept there is gone for a reason that no protocol can help.
  for (auto& [id, expected] : expected_) {
    std::erase_if(expected.flows, [&](const Expectation& e) { return e.from_host == host; });
  }
}

}  // namespace sami::sim
