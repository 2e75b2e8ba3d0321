#include <fmt/format.h>

#include "tests/sim/process.h"
#include "tests/sim/world.h"

namespace sami::sim {

// ---- the master

Master::Master(World& world) : Process(world, "som") {}

protocol::SomConfig Master::config(const Settings& settings) {
  using std::chrono::seconds;
  protocol::SomConfig config;
  config.identity = "spiffe://sim/sami/som/som";
  auto& tracking = config.classes.emplace_back();
  tracking.set_state_class(std::string(connections_class));
  tracking.set_essential(true);
  auto& counting = config.classes.emplace_back();
  counting.set_state_class(std::string(counters_class));
  counting.set_essential(settings.counters_essential);
  config.lease_ms = 6000;
  config.grace_ms = 1000;
  config.heartbeat_interval_ms = 1000;
  config.repeat_interval = milliseconds(400);
  config.prepare_deadline = seconds(3);
  config.precopy_deadline = seconds(5);
  config.standby_deadline = seconds(6);
  config.switch_deadline = seconds(2);
  config.completion_deadline = seconds(6);
  config.outcome_deadline = seconds(4);
  config.release_deadline = seconds(6);
  config.rollback_deadline = seconds(4);
  return config;
}

void Master::build() {
  som_.emplace(config(engine_.settings), journal, world_.mutation == Mutation::NoDeadlines ? Instant{0} : engine_.now);
  apply(protocol::som_event::Tick{});
}

void Master::forget(bool) {
  som_.reset();
  for (auto& [host, link] : agent_links) link->server_gone();
  if (tde_link != nullptr) tde_link->server_gone();
}

Instant Master::next_deadline() const {
  return som_ && world_.mutation != Mutation::NoDeadlines ? som_->next_deadline() : Instant::never();
}

void Master::tick() { apply(protocol::som_event::Tick{}); }

void Master::apply(protocol::SomEvent event) {
  if (!som_) return;
  const CrashPoint point = draw_crash();
  som_->set_wall(engine_.now.nanoseconds / 1000);
  engine_.record("som", event.index());
  const Instant now = world_.mutation == Mutation::NoDeadlines ? Instant{0} : engine_.now;
  protocol::SomStep step = som_->step(now, std::move(event));
  if (world_.mutation != Mutation::None) mutate(world_, step);
  if (point == CrashPoint::BeforeCommit) return die();
  if (!commit(step.journal)) return;
  for (const auto& entry : step.audit) {
    if (engine_.tracing()) engine_.trace(fmt::format("som: {} {} {}", entry.migration_id, entry.event, entry.detail));
  }
  world_.checker->master_stepped(step);
  if (point == CrashPoint::AfterCommit) return die();
  std::size_t effects = step.to_agents.size() + step.to_tdes.size();
  if (point == CrashPoint::Midway) effects = engine_.random.below(effects + 1);
  for (const auto& message : step.to_agents) {
    if (effects == 0) break;
    --effects;
    send(message);
  }
  for (const auto& message : step.to_tdes) {
    if (effects == 0) break;
    --effects;
    send(message);
  }
  if (point == CrashPoint::Midway) return die();
  arm();
}

void Master::send(const protocol::SomStep::ToAgent& to) {
  const auto link = agent_links.find(to.host);
  if (link == agent_links.end()) return;
  auto copy = std::make_shared<if_m_a::v1::MasterMessage>(to.message);
  Agent& agent = world_.agent(to.host);
  const bool bulk = copy->has_download_state();
  link->second->to_client([&agent, copy] { agent.take(*copy); }, bulk);
  if (!engine_.fault(engine_.settings.replay)) return;
  // An old message again, in whatever stream there is by then.
  engine_.after(engine_.delay_ms(500, 9000), [&agent, copy] {
    if (agent.up()) agent.take(*copy);
  });
}

void Master::send(const protocol::SomStep::ToTde& to) {
  auto copy = std::make_shared<if_m_t::v1::MasterMessage>(to.message);
  tde_link->to_client([this, copy] { world_.entity->take(*copy); }, false);
}

// ---- the entity with the gate

Entity::Entity(World& world) : Process(world, "tde") {}

protocol::GateConfig Entity::config() const {
  protocol::GateConfig config;
  config.identity = "spiffe://sim/sami/tde/tde";
  for (const auto& vm : world_.vms) config.subjects.push_back(vm.name);
  config.standby_deadline = std::chrono::seconds(6);
  config.verdict_deadline = milliseconds(2500);
  config.no_verdict = engine_.settings.continue_without_verdict ? protocol::NoVerdictPolicy::Continue
                                                                : protocol::NoVerdictPolicy::Cancel;
  config.repeat_interval = milliseconds(400);
  return config;
}

void Entity::build() {
  gate_.emplace(config(), journal);
  authorized_ = false;
  if (connected_) {
    apply(protocol::gate_event::Connected{});
  } else {
    apply(protocol::gate_event::Tick{});
  }
}

void Entity::forget(bool) {
  gate_.reset();
  connected_ = authorized_ = false;
  if (link != nullptr) link->client_gone();
}

void Entity::journal_unavailable() {
  protocol::Gate emergency(config(), journal);
  for (const auto& instruction : emergency.step(engine_.now, protocol::gate_event::JournalUnavailable{}).instructions) {
    world_.hypervisor->instruct(instruction);
  }
}

bool Entity::report(protocol::GateEvent event) {
  if (!gate_) return false;
  engine_.record("hypervisor", event.index());
  return apply(std::move(event));
}

void Entity::connected() {
  connected_ = true;
  apply(protocol::gate_event::Connected{});
}

void Entity::disconnected() {
  connected_ = false;
  apply(protocol::gate_event::Disconnected{});
}

void Entity::take(const if_m_t::v1::MasterMessage& message) {
  if (!gate_) return;
  engine_.record(name, message.ByteSizeLong());
  if (engine_.tracing()) engine_.trace(fmt::format("tde <- {}", describe(message)));
  world_.checker->gate_sees(message);
  apply(protocol::gate_event::FromMaster{message});
}

bool Entity::apply(protocol::GateEvent event) {
  if (!gate_) return false;
  const CrashPoint point = draw_crash();
  protocol::GateStep step = gate_->step(engine_.now, std::move(event));
  if (point == CrashPoint::BeforeCommit) return die(), false;
  if (!commit(step.journal)) return false;
  for (const auto& entry : step.audit) {
    if (engine_.tracing()) engine_.trace(fmt::format("tde: {} {} {}", entry.migration_id, entry.event, entry.detail));
  }
  world_.checker->gate_stepped(step);
  for (const auto& move : gate_->moves()) {
    if (move.record.outcome() == common::v1::OUTCOME_UNSPECIFIED) continue;
    const bool there = move.record.outcome() == common::v1::OUTCOME_AT_DESTINATION;
    world_.hypervisor->notified(move.record.notification_id(), there);
  }
  if (point == CrashPoint::AfterCommit) return die(), true;
  std::size_t effects = step.messages.size() + step.instructions.size();
  if (point == CrashPoint::Midway) effects = engine_.random.below(effects + 1);
  for (const auto& message : step.messages) {
    if (effects == 0) break;
    --effects;
    send(message);
  }
  const bool authorized_now = gate_->authorized() && !authorized_;
  authorized_ = gate_->authorized();
  if (authorized_now) send_inventory();
  for (const auto& instruction : step.instructions) {
    if (effects == 0) break;
    --effects;
    world_.hypervisor->instruct(instruction);
  }
  if (point == CrashPoint::Midway) return die(), true;
  arm();
  return true;
}

void Entity::send(const if_m_t::v1::TdeMessage& message) {
  auto copy = std::make_shared<if_m_t::v1::TdeMessage>(message);
  if (engine_.tracing()) engine_.trace(fmt::format("tde -> {}", describe(*copy)));
  link->to_server([this, copy] { world_.master->apply(protocol::som_event::FromTde{name, *copy}); });
}

void Entity::send_inventory() {
  if_m_t::v1::TdeMessage message;
  for (const auto& vm : world_.vms) {
    auto* place = message.mutable_inventory()->add_places();
    *place->mutable_subject() = world_.subject(vm);
    place->set_server(world_.servers[places.at(vm.name)].name);
  }
  send(message);
}

}  // namespace sami::sim
