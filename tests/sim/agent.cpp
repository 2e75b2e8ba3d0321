#include <fmt/format.h>

#include "tests/sim/process.h"
#include "tests/sim/world.h"

namespace sami::sim {

namespace {

using protocol::DriverReply;
namespace driver_call = protocol::driver_call;

// Some items fail, the others are done.
DriverReply perform_part(const protocol::DriverCall& call, state::Driver& driver, Random& random) {
  const auto& items = std::get<driver_call::Install>(call.call).items;
  protocol::DriverCall part = call;
  auto& chosen = std::get<driver_call::Install>(part.call).items;
  std::vector<bool> done;
  chosen.clear();
  for (const auto& item : items) {
    done.push_back(random.chance(700));
    if (done.back()) chosen.push_back(item);
  }
  DriverReply reply = protocol::perform(part, driver);
  auto* installed = std::get_if<protocol::Installed>(&reply.result);
  if (installed == nullptr) return reply;
  if (random.chance(500)) return {call.id, Error{ErrorKind::Retry, "interrupted in the middle"}};
  std::vector<state::InstallResult> all;
  for (std::size_t i = 0, next = 0; i < items.size(); ++i) {
    if (done[i]) {
      all.push_back(installed->results[next++]);
    } else {
      all.push_back({items[i].record.key, state::InstallOutcome::Failed, 0, 0, false, "no memory"});
    }
  }
  return {call.id, protocol::Installed{std::move(all), std::move(installed->found)}};
}

}  // namespace

Agent::Agent(World& world, std::string host) : Process(world, std::move(host)) { kernel.name = name; }

void Agent::make_drivers() {
  const auto now = [this] { return engine_.now; };
  connections = std::make_unique<FakeConnections>(kernel, now);
  connections->needs_barrier = engine_.settings.barrier;
  counters = std::make_unique<FakeCounters>(kernel, now);
}

protocol::SoaConfig Agent::config() const {
  protocol::SoaConfig config;
  config.host = name;
  config.identity = "spiffe://sim/sami/soa/" + name;
  config.drivers = {connections->profile(), counters->profile()};
  config.profile.set_host(name);
  for (const auto& [context, tables] : kernel.contexts) config.profile.add_contexts()->set_name(context);
  config.window = 4;
  config.chunk_bytes = 256;
  config.converged_records = 4;
  config.max_precopy_rounds = 4;
  config.barrier_timeout_ms = 4000;
  config.round_interval = milliseconds(200);
  config.repeat_interval = milliseconds(400);
  config.sweep_interval = milliseconds(200);
  return config;
}

void Agent::build() {
  if (!connections) make_drivers();
  soa_.emplace(config(), journal);
  if (connected_) return apply(protocol::soa_event::Connected{});
  apply(protocol::soa_event::Tick{});
}

void Agent::forget(bool process_died) {
  soa_.reset();
  connected_ = false;
  if (process_died) {
    lanes_.clear();
    world_.checker->agent_died(name);
    connections.reset();
    counters.reset();
  }
  if (link != nullptr) link->client_gone();
}

void Agent::reboot(Duration down) {
  crash(down);
  engine_.record("reboot " + name);
  if (engine_.tracing()) engine_.trace(name + ": its kernel forgets everything");
  for (auto& [context, tables] : kernel.contexts) tables = {};
  world_.checker->rebooted(name);
}

void Agent::journal_unavailable() {
  protocol::Soa emergency(config(), journal);
  for (auto& call : emergency.step(engine_.now, protocol::soa_event::JournalUnavailable{}).calls)
    enqueue(std::move(call));
}

void Agent::connected() {
  connected_ = true;
  apply(protocol::soa_event::Connected{});
}

void Agent::disconnected() {
  connected_ = false;
  apply(protocol::soa_event::Disconnected{});
}

void Agent::take(const if_m_a::v1::MasterMessage& message) {
  if (!soa_) return;
  engine_.record(name, message.ByteSizeLong());
  if (engine_.tracing()) engine_.trace(fmt::format("{} <- {}", name, describe(message)));
  world_.checker->agent_sees(name, message);
  apply(protocol::soa_event::FromMaster{message});
}

void Agent::apply(protocol::SoaEvent event) {
  if (!soa_) return;
  const CrashPoint point = draw_crash();
  protocol::SoaStep step;
  if (world_.mutation == Mutation::None) {
    step = soa_->step(engine_.now, std::move(event));
  } else {
    step = soa_->step(engine_.now, event);
    mutate(world_, *this, event, step);
  }
  if (point == CrashPoint::BeforeCommit) return die();
  if (!commit(step.journal)) return;
  for (const auto& entry : step.audit) {
    if (engine_.tracing()) engine_.trace(fmt::format("{}: {} {}", name, entry.event, entry.detail));
  }
  world_.checker->agent_stepped(name, step);
  if (point == CrashPoint::AfterCommit) return die();
  std::size_t effects = step.messages.size() + step.calls.size();
  if (point == CrashPoint::Midway) effects = engine_.random.below(effects + 1);
  for (const auto& message : step.messages) {
    if (effects == 0) break;
    --effects;
    send(message);
  }
  for (auto& call : step.calls) {
    if (effects == 0) break;
    --effects;
    enqueue(std::move(call));
  }
  if (point == CrashPoint::Midway) return die();
  arm();
}

void Agent::send(const if_m_a::v1::AgentMessage& message) {
  auto copy = std::make_shared<if_m_a::v1::AgentMessage>(message);
  if (copy->has_upload_state()) world_.tamper(*this, *copy->mutable_upload_state());
  if (engine_.tracing()) engine_.trace(fmt::format("{} -> {}", name, describe(*copy)));
  link->to_server([this, copy] { world_.master->apply(protocol::som_event::FromAgent{name, *copy}); });
}

// ---- driver calls

bool Agent::idle() const {
  for (const auto& [state_class, lane] : lanes_) {
    if (!lane.waiting.empty() || lane.running > 0) return false;
  }
  return true;
}

void Agent::enqueue(protocol::DriverCall call) {
  const std::string state_class = call.state_class;
  lanes_[state_class].waiting.push_back(std::move(call));
  run_next(state_class);
}

void Agent::run_next(const std::string& state_class) {
  Lane& lane = lanes_[state_class];
  const std::uint32_t writers = world_.mutation == Mutation::TwoWriters ? 2 : 1;
  if (lane.waiting.empty() || lane.running >= writers) return;
  const protocol::DriverCall call = std::move(lane.waiting.front());
  lane.waiting.pop_front();
  ++lane.running;
  world_.checker->call_begins(name, call);
  run(call);
}

// The effect comes in the middle of the call, the reply at its end; between the two the process may die.
void Agent::run(const protocol::DriverCall& call) {
  const auto& settings = engine_.settings;
  const std::int64_t longest = engine_.fault(settings.slow_driver) ? 2000 : settings.driver_ms;
  engine_.after(engine_.delay_ms(0, longest), [this, call, life = life_, machine = machine_, longest] {
    if (life != life_) return;
    const auto reply = std::make_shared<DriverReply>(perform(call));
    engine_.after(engine_.delay_ms(0, longest / 2 + 1), [this, call, life, machine, reply] {
      if (life != life_) return;
      world_.checker->call_ends(name, call);
      --lanes_[call.state_class].running;
      if (machine == machine_) apply(protocol::soa_event::FromDriver{*reply});
      if (life == life_) run_next(call.state_class);
    });
  });
}

DriverReply Agent::perform(const protocol::DriverCall& call) {
  const bool connection_call = call.state_class == connections_class;
  if (!connection_call && call.state_class != counters_class)
    return {call.id, Error{ErrorKind::Unsupported, "no such class"}};
  state::Driver& driver = connection_call ? static_cast<state::Driver&>(*connections) : *counters;
  const bool unfollow_or_lower = std::holds_alternative<driver_call::Unfollow>(call.call) ||
                                 std::holds_alternative<driver_call::LowerBarrier>(call.call);
  const bool fails = engine_.fault(engine_.settings.driver_error);
  const Error error{engine_.random.chance(800) ? ErrorKind::Retry : ErrorKind::Failed, "the driver failed", 5};
  engine_.record("call " + name, call.call.index());
  if (fails && engine_.random.chance(500)) return {call.id, error};
  const auto before = world_.checker->before_call(name, call);
  const bool partial = std::holds_alternative<driver_call::Install>(call.call) && !unfollow_or_lower &&
                       engine_.fault(engine_.settings.partial_install);
  DriverReply reply =
      partial ? perform_part(call, driver, engine_.random) : perform_mutated(world_, *this, call, driver);
  if (engine_.tracing()) engine_.trace(fmt::format("{}: {}", name, describe(call, reply)));
  world_.checker->after_call(name, call, before, reply);
  if (fails) return {call.id, error};
  return reply;
}

}  // namespace sami::sim
