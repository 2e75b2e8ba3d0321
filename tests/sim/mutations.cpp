#include "tests/sim/mutations.h"

#include "tests/sim/world.h"

namespace sami::sim {

namespace {

namespace driver_call = protocol::driver_call;
namespace soa_event = protocol::soa_event;
using protocol::DriverReply;

const std::string& context_name(const state::Scope& scope) {
  static const std::string standard = "default";
  return scope.context.empty() ? standard : scope.context;
}

void release_everything(World& world, protocol::SomStep& step) {
  for (std::size_t i = 0; i < step.to_tdes.size(); ++i) {
    if (!step.to_tdes[i].message.has_verdict() || step.to_tdes[i].message.verdict().vote() != common::v1::VOTE_GO)
      continue;
    const auto* migration = world.master->machine()->find(step.to_tdes[i].message.verdict().migration_id());
    if (migration == nullptr) continue;
    for (const auto& transfer : migration->transfers()) {
      if_m_a::v1::MasterMessage message;
      auto& release = *message.mutable_release();
      release.mutable_transfer()->set_migration_id(migration->id());
      release.mutable_transfer()->set_transfer(transfer.plan().index());
      release.mutable_transfer()->set_epoch(migration->epoch());
      release.mutable_transfer()->set_subject_id(migration->subject().id());
      release.set_role(if_m_a::v1::TRANSFER_ROLE_SOURCE);
      release.set_grace_ms(1000);
      step.to_agents.push_back({transfer.plan().source_host(), message});
    }
  }
}

// The vote goes out, the journal has the migration as it was.
void forget_vote(World&, protocol::SomStep& step) {
  std::erase_if(step.journal, [](const JournalWrite& write) {
    protocol::journal::Migration migration;
    return write.value && write.key.compare(0, 10, "migration/") == 0 && migration.ParseFromString(*write.value) &&
           migration.vote() == common::v1::VOTE_GO && migration.outcome() == common::v1::OUTCOME_UNSPECIFIED;
  });
}

void retain_nothing(protocol::SomStep& step) {
  for (auto& [host, message] : step.to_agents) {
    if (message.has_upload_request())
      message.mutable_upload_request()->mutable_plan()->set_disposition(common::v1::DISPOSITION_MOVE);
    if (message.has_get_ready())
      message.mutable_get_ready()->mutable_plan()->set_disposition(common::v1::DISPOSITION_MOVE);
  }
}

void remove_at_finalize(Agent& agent, const protocol::SoaEvent& event, protocol::SoaStep& step) {
  const auto* message = std::get_if<soa_event::FromMaster>(&event);
  if (message == nullptr || !message->message.has_finalize() || message->message.finalize().thaw()) return;
  for (const auto& call : step.calls) {
    if (call.state_class != connections_class) continue;
    protocol::DriverCall sweep = call;
    sweep.id = ~std::uint64_t{0};
    sweep.call = driver_call::Sweep{};
    agent.enqueue(std::move(sweep));
    return;
  }
}

// The scope of a rollback is all that is deleted, whoever installed it.
void take_all(World& world, Agent& agent, protocol::SoaStep& step) {
  for (auto& call : step.calls) {
    auto* remove = std::get_if<driver_call::Remove>(&call.call);
    if (remove == nullptr || call.state_class != connections_class) continue;
    const auto* migration =
        world.master->machine() == nullptr ? nullptr : world.master->machine()->find(call.scope->migration_id);
    if (migration == nullptr || migration->state() != protocol::journal::ROLLING_BACK) continue;
    const auto tables = agent.kernel.contexts.find(context_name(*call.scope));
    if (tables == agent.kernel.contexts.end()) continue;
    remove->keys.clear();
    for (const auto& [key, connection] : tables->second.connections) remove->keys.push_back(key);
  }
}

DriverReply take_foreign(World& world, Agent& agent, const protocol::DriverCall& call, state::Driver& driver) {
  DriverReply reply = protocol::perform(call, driver);
  const auto* install = std::get_if<driver_call::Install>(&call.call);
  auto* installed = std::get_if<protocol::Installed>(&reply.result);
  if (install == nullptr || installed == nullptr) return reply;
  auto* results = &installed->results;
  for (std::size_t i = 0; i < results->size(); ++i) {
    Connection connection;
    if ((*results)[i].outcome != state::InstallOutcome::Foreign || !decode(install->items[i].record.body, connection))
      continue;
    connection.installed_by = call.scope->migration_id;
    connection.born = world.engine.now;
    agent.kernel.contexts.at(context_name(*call.scope)).connections[install->items[i].record.key] = connection;
    (*results)[i].outcome = state::InstallOutcome::Installed;
  }
  return reply;
}

DriverReply overwrite(Agent& agent, const protocol::DriverCall& call, state::Driver& driver) {
  if (const auto* install = std::get_if<driver_call::Install>(&call.call)) {
    auto& table = agent.kernel.contexts.at(context_name(*call.scope)).connections;
    for (const auto& item : install->items) {
      const auto stands = table.find(item.record.key);
      Connection wanted;
      if (stands == table.end() || item.only_if_absent || !decode(item.record.body, wanted)) continue;
      if (stands->second.translation != wanted.translation) table.erase(stands);
    }
  }
  return protocol::perform(call, driver);
}

DriverReply call_it_the_same(const protocol::DriverCall& call, state::Driver& driver) {
  DriverReply reply = protocol::perform(call, driver);
  if (auto* installed = std::get_if<protocol::Installed>(&reply.result)) {
    for (auto& result : installed->results) {
      if (result.outcome == state::InstallOutcome::Conflict) result.outcome = state::InstallOutcome::Adopted;
    }
  }
  return reply;
}

DriverReply add_in_place(Agent& agent, const protocol::DriverCall& call, state::Driver& driver) {
  const auto* install = std::get_if<driver_call::Install>(&call.call);
  if (install == nullptr || call.state_class != counters_class) return protocol::perform(call, driver);
  const Context before = agent.kernel.contexts.at(context_name(*call.scope));
  DriverReply reply = protocol::perform(call, driver);
  Context& after = agent.kernel.contexts.at(context_name(*call.scope));
  for (const auto& [key, counter] : before.counters) {
    for (const auto& [epoch, value] : counter.moved) {
      const auto now = after.counters.find(key);
      if (now != after.counters.end() && now->second.moved.contains(epoch)) now->second.moved[epoch] += value;
    }
  }
  return reply;
}

}  // namespace

const std::vector<MutationInfo>& mutations() {
  static const std::vector<MutationInfo> all = {
      {Mutation::ReleaseBeforeOutcome, "release-before-outcome", 1},
      {Mutation::VoteNotJournaled, "vote-not-journaled", 1},
      {Mutation::RemoveAtFinalize, "remove-at-finalize", 2},
      {Mutation::ChangesForgotten, "changes-forgotten", 2},
      {Mutation::BarrierStays, "barrier-stays", 2},
      {Mutation::NothingRemoved, "nothing-removed", 3},
      {Mutation::RetainedIsMoved, "retained-is-moved", 3},
      {Mutation::CountersAddedInPlace, "counters-added-in-place", 4},
      {Mutation::ForeignTaken, "foreign-taken", 5},
      {Mutation::RollbackTakesAll, "rollback-takes-all", 5},
      {Mutation::ConflictOverwritten, "conflict-overwritten", 6},
      {Mutation::ConflictAdopted, "conflict-adopted", 6},
      {Mutation::EpochForgotten, "epoch-forgotten", 7},
      {Mutation::NoDeadlines, "no-deadlines", 8},
      {Mutation::TwoWriters, "two-writers", 9},
  };
  return all;
}

void provoke(Mutation mutation, Settings& settings) {
  if (mutation != Mutation::EpochForgotten) return;
  settings.crash = 10;
  settings.replay = 200;
}

void mutate(World& world, protocol::SomStep& step) {
  switch (world.mutation) {
    case Mutation::ReleaseBeforeOutcome: return release_everything(world, step);
    case Mutation::VoteNotJournaled: return forget_vote(world, step);
    case Mutation::RetainedIsMoved: return retain_nothing(step);
    default: return;
  }
}

void mutate(World& world, Agent& agent, const protocol::SoaEvent& event, protocol::SoaStep& step) {
  switch (world.mutation) {
    case Mutation::RemoveAtFinalize: return remove_at_finalize(agent, event, step);
    case Mutation::EpochForgotten:
      world.checker->epochs_written(agent.name, step.journal);
      std::erase_if(step.journal, [](const JournalWrite& write) { return write.key.compare(0, 6, "epoch/") == 0; });
      return;
    case Mutation::RollbackTakesAll: return take_all(world, agent, step);
    default: return;
  }
}

DriverReply perform_mutated(World& world, Agent& agent, const protocol::DriverCall& call, state::Driver& driver) {
  switch (world.mutation) {
    case Mutation::ChangesForgotten:
      if (std::holds_alternative<driver_call::Changes>(call.call) && call.state_class == connections_class) {
        (void)protocol::perform(call, driver);
        return {call.id, state::Changes{}};
      }
      if (std::holds_alternative<driver_call::Finalize>(call.call) && call.state_class == connections_class) {
        (void)protocol::perform(call, driver);
        return {call.id, protocol::Finalized{}};
      }
      break;
    case Mutation::BarrierStays:
      if (std::holds_alternative<driver_call::LowerBarrier>(call.call)) return {call.id, {}};
      if (auto raise = call; auto* last = std::get_if<driver_call::Finalize>(&raise.call)) {
        if (last->barrier_ms > 0) last->barrier_ms = ~std::uint32_t{0};
        return protocol::perform(raise, driver);
      }
      break;
    case Mutation::NothingRemoved:
      if (std::holds_alternative<driver_call::Remove>(call.call) ||
          std::holds_alternative<driver_call::Sweep>(call.call)) {
        return {call.id, std::uint64_t{0}};
      }
      break;
    case Mutation::CountersAddedInPlace: return add_in_place(agent, call, driver);
    case Mutation::ForeignTaken: return take_foreign(world, agent, call, driver);
    case Mutation::ConflictOverwritten: return overwrite(agent, call, driver);
    case Mutation::ConflictAdopted: return call_it_the_same(call, driver);
    default: break;
  }
  return protocol::perform(call, driver);
}

}  // namespace sami::sim
