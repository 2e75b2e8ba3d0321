#include "tests/sim/hypervisor.h"

#include <algorithm>

#include "tests/sim/world.h"

namespace sami::sim {

namespace {
using Kind = protocol::HypervisorInstruction::Kind;
namespace event = protocol::gate_event;
namespace if_m_t = ::sami::if_m_t::v1;

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::Copying: return "copying";
    case Phase::Paused: return "paused";
    case Phase::AtDestination: return "at the destination";
    case Phase::AtSource: return "at the source";
  }
  return "";
}
bool over(const Move& move) { return move.phase == Phase::AtDestination || move.phase == Phase::AtSource; }
}  // namespace

const Move* Hypervisor::find(const std::string& id) const {
  const auto found = moves_.find(id);
  return found == moves_.end() ? nullptr : &found->second;
}

const Move* Hypervisor::open_move(std::size_t vm) const {
  for (const auto& [id, move] : moves_) {
    if (move.vm == vm && !over(move)) return &move;
  }
  return nullptr;
}

// ---- beginning

void Hypervisor::begin_some_move() {
  Random& random = world_.engine.random;
  const std::size_t vm = random.below(world_.vms.size());
  if (open_move(vm) != nullptr || world_.servers.size() < 2) return;
  const std::size_t from = world_.vms[vm].server;
  std::size_t to = random.below(world_.servers.size() - 1);
  if (to >= from) ++to;
  if (next_ > 0 && random.chance(300) && world_.engine.settings.wild_hypervisor) {  // A-B-A
    for (const auto& [id, earlier] : moves_) {
      if (earlier.vm == vm && earlier.phase == Phase::AtDestination && earlier.from != from) to = earlier.from;
    }
  }
  Move move;
  char name[16];
  std::snprintf(name, sizeof name, "n%03u", static_cast<unsigned>(++next_ & 0xfff));
  move.id = name;
  move.vm = vm;
  move.from = from;
  move.to = to;
  move.began = world_.engine.now;
  plan_script(move);
  const std::string id = move.id;
  moves_[id] = std::move(move);
  mark_flows(vm);
  if (world_.engine.tracing()) {
    world_.engine.trace("hypervisor: " + id + " moves " + world_.vms[vm].name + " from " + world_.servers[from].name +
                        " to " + world_.servers[to].name);
  }
  if (moves_[id].announced) {
    announce(moves_[id], if_m_t::PHASE_ANNOUNCED);
    if (!moves_[id].waits) {
      world_.engine.after(world_.engine.delay_ms(10, 3000), [this, id] { pause(id); });
    }
  } else {
    world_.engine.after(world_.engine.delay_ms(10, 500), [this, id] { resume(id, true); });
  }
}

void Hypervisor::plan_script(Move& move) {
  Random& random = world_.engine.random;
  if (!world_.engine.settings.wild_hypervisor) {
    move.announced = random.chance(900);
    if (random.chance(100))
      world_.engine.after(world_.engine.delay_ms(0, 4000), [this, id = move.id] { resume(id, false); });
    return;
  }
  move.announced = random.chance(750);
  move.waits = random.chance(600);
  if (random.chance(500)) move.on_verdict = static_cast<Move::OnVerdict>(random.below(5));
  if (random.chance(250))
    world_.engine.after(world_.engine.delay_ms(0, 5000), [this, id = move.id] { resume(id, false); });
  if (random.chance(150))
    world_.engine.after(world_.engine.delay_ms(0, 5000), [this, id = move.id] { resume(id, true); });
}

// A flow between two VMs of which both are moved at once: what each TDE notification planned is not the truth any more.
void Hypervisor::mark_flows(std::size_t vm) {
  for (auto& flow : world_.flows) {
    if (flow.peer_vm < 0) continue;
    const auto other = flow.vm == vm ? static_cast<std::size_t>(flow.peer_vm) : flow.vm;
    if (flow.vm != vm && static_cast<std::size_t>(flow.peer_vm) != vm) continue;
    if (in_motion(other)) flow.unchecked = true;
  }
}

bool Hypervisor::in_motion(std::size_t vm) const {
  const std::string& name = world_.vms[vm].name;
  if (open_move(vm) != nullptr || world_.checker->open_migration(name)) return true;
  if (world_.entity->places.at(name) != world_.vms[vm].server || !world_.entity->up()) return true;
  const auto moves = world_.entity->machine()->moves();
  return std::any_of(moves.begin(), moves.end(), [&](const auto& view) { return view.record.subject().id() == name; });
}

bool Hypervisor::ran_unnoticed(std::size_t vm) const {
  return std::any_of(moves_.begin(), moves_.end(), [&](const auto& entry) {
    const Move& move = entry.second;
    if (move.vm != vm || move.phase != Phase::AtDestination) return false;
    Instant left = Instant::never();
    for (const auto& [id, later] : moves_) {
      if (later.vm == vm && later.from == move.to && later.began > move.began) left = std::min(left, later.began);
    }
    return std::none_of(moves_.begin(), moves_.end(), [&](const auto& other) {
      return other.second.vm == vm && other.second.to == move.to && other.second.began >= move.began &&
             other.second.began <= left && told_.contains(other.first);
    });
  });
}

void Hypervisor::announce(Move& move, if_m_t::Phase phase) {
  move.transfers = world_.plan(move.vm, move.from, move.to);
  if_m_t::Notify notify;
  notify.set_notification_id(move.id);
  notify.set_phase(phase);
  notify.set_cause(common::v1::CAUSE_VM_MIGRATION);
  *notify.mutable_subject() = world_.subject(world_.vms[move.vm]);
  notify.set_source_place(world_.servers[move.from].name);
  notify.set_destination_place(world_.servers[move.to].name);
  for (const auto& transfer : move.transfers) *notify.add_transfers() = transfer;
  if (world_.engine.settings.operators && world_.engine.random.chance(150)) notify.set_force(true);
  if (notify.transfers_size() == 0) {  // nothing of the path changes: SAMI has no part in it
    move.ended = true;
    return;
  }
  if (phase == if_m_t::PHASE_MOVED) world_.checker->expect(move);
  world_.entity->report(event::MoveBegan{notify});
}

// ---- what the gate says

void Hypervisor::instruct(const protocol::HypervisorInstruction& instruction) {
  world_.engine.after(world_.engine.delay_ms(0, 20), [this, instruction] { carry_out(instruction); });
}

void Hypervisor::carry_out(const protocol::HypervisorInstruction& instruction) {
  const auto found = moves_.find(instruction.notification_id);
  if (found == moves_.end()) return;
  Move& move = found->second;
  if (world_.engine.tracing()) {
    static constexpr const char* names[] = {"may pause", "continue", "cancel", "find out", "concluded", "refused"};
    world_.engine.trace("hypervisor <- " + move.id + " " + names[static_cast<int>(instruction.kind)] + " " +
                        instruction.detail);
  }
  switch (instruction.kind) {
    case Kind::MayPause:
      if (move.waits && move.phase == Phase::Copying) {
        move.waits = false;
        world_.engine.after(world_.engine.delay_ms(0, 400), [this, id = move.id] { pause(id); });
      }
      if (over(move)) report_later(move.id);
      return;
    case Kind::Continue: return verdict(move.id, true);
    case Kind::Cancel: return verdict(move.id, false);
    case Kind::FindOut: return find_out(move.id);
    case Kind::Concluded:
    case Kind::Refused:
      move.ended = true;
      if (move.phase == Phase::Copying) {
        world_.engine.after(world_.engine.delay_ms(0, 500),
                            [this, id = move.id] { resume(id, world_.engine.random.chance(500)); });
      } else if (move.phase == Phase::Paused) {
        world_.engine.after(world_.engine.delay_ms(0, 100), [this, id = move.id] { resume(id, true); });
      }
      return;
  }
}

void Hypervisor::verdict(const std::string& id, bool go_on) {
  Move& move = moves_.at(id);
  if (over(move)) return report_later(id);
  if (move.dead) return;
  switch (move.on_verdict) {
    case Move::OnVerdict::Obey: return resume(id, go_on);
    case Move::OnVerdict::GoOn: return resume(id, true);
    case Move::OnVerdict::GoBack: return resume(id, false);
    case Move::OnVerdict::Ignore: return;
    case Move::OnVerdict::Die: move.dead = true; return;
  }
}

void Hypervisor::find_out(const std::string& id) {
  const Move& move = moves_.at(id);
  if (move.dead || move.phase == Phase::Copying) {
    world_.entity->report(event::PlaceUnknown{id, move.dead ? "the hypervisor does not answer" : "it is being copied"});
  } else {
    report(move);
  }
}

void Hypervisor::report_later(const std::string& id) {
  world_.engine.after(world_.engine.delay_ms(0, 50), [this, id] { report(moves_.at(id)); });
}

void Hypervisor::report(const Move& move) {
  switch (move.phase) {
    case Phase::Copying: return;
    case Phase::Paused: world_.entity->report(event::VmPaused{move.id}); return;
    case Phase::AtDestination: world_.entity->report(event::VmResumedAtDestination{move.id}); return;
    case Phase::AtSource: world_.entity->report(event::VmResumedAtSource{move.id}); return;
  }
}

// ---- what the VM does

void Hypervisor::pause(const std::string& id) {
  Move& move = moves_.at(id);
  if (move.phase != Phase::Copying || move.dead) return;
  move.phase = Phase::Paused;
  world_.vms[move.vm].running = false;
  if (world_.engine.tracing()) world_.engine.trace("hypervisor: " + id + " is paused");
  world_.engine.record("paused", move.vm);
  world_.checker->expect(move);
  report(move);
  if (world_.engine.settings.wild_hypervisor && world_.engine.random.chance(200)) {  // does not wait for a verdict
    world_.engine.after(world_.engine.delay_ms(10, 2000), [this, id] { resume(id, world_.engine.random.chance(600)); });
  }
}

void Hypervisor::resume(const std::string& id, bool at_destination) {
  Move& move = moves_.at(id);
  if (over(move) || move.dead) return;
  Vm& vm = world_.vms[move.vm];
  if (move.phase == Phase::Copying && at_destination && move.announced) world_.checker->expect(move);
  move.phase = at_destination ? Phase::AtDestination : Phase::AtSource;
  vm.running = true;
  vm.server = at_destination ? move.to : move.from;
  vm.arrived = world_.engine.now;
  world_.engine.record(name_of(move.phase), move.vm);
  if (world_.engine.tracing())
    world_.engine.trace("hypervisor: " + id + " " + vm.name + " runs " + name_of(move.phase));
  if (at_destination) world_.stray_packets(move.vm, move.from);
  if (move.announced) report(move);
}

// ---- the TDE's own eyes

void Hypervisor::notified(const std::string& id, bool at_destination) {
  const auto found = moves_.find(id);
  if (found == moves_.end() || told_[id]) return;
  told_[id] = true;
  const Move& move = found->second;
  if (at_destination) world_.entity->places[world_.vms[move.vm].name] = move.to;
}

void Hypervisor::notice() {
  for (std::size_t i = 0; i < world_.vms.size(); ++i) {
    if (!world_.entity->up()) return;
    const Vm& vm = world_.vms[i];
    const std::size_t believed = world_.entity->places.at(vm.name);
    const Move* current = open_move(i);
    if (vm.server == believed || (current != nullptr && current->phase == Phase::Paused)) continue;
    const auto open = world_.entity->machine()->moves();
    const bool follows = std::any_of(open.begin(), open.end(), [&](const auto& view) {
      return view.record.subject().id() == vm.name && view.record.outcome() == common::v1::OUTCOME_UNSPECIFIED;
    });
    if (follows && !world_.engine.random.chance(50)) continue;  // now and then two reports of one move
    Move seen;
    char name[16];
    std::snprintf(name, sizeof name, "m%03u", static_cast<unsigned>(++next_ & 0xfff));
    seen.id = name;
    seen.vm = i;
    seen.from = believed;
    seen.to = vm.server;
    seen.announced = false;
    seen.phase = Phase::AtDestination;
    seen.began = world_.engine.now;
    if (world_.engine.tracing())
      world_.engine.trace("tde: notices that " + vm.name + " is at " + world_.servers[vm.server].name);
    mark_flows(i);
    const std::string id = seen.id;
    Move& move = moves_[id] = std::move(seen);
    announce(move, if_m_t::PHASE_MOVED);
    if (move.ended) world_.entity->places[vm.name] = vm.server;
  }
}

void Hypervisor::heal() {
  for (auto& [id, move] : moves_) {
    if (over(move)) continue;
    move.on_verdict = Move::OnVerdict::Obey;
    const bool decided = move.dead || move.phase == Phase::Paused || world_.engine.random.chance(500);
    move.dead = false;
    world_.engine.after(world_.engine.delay_ms(0, decided ? 3000 : 20000),
                        [this, id_ = id] { resume(id_, world_.engine.random.chance(500)); });
  }
}

bool Hypervisor::quiet() const {
  for (const auto& [id, move] : moves_) {
    if (!over(move)) return false;
  }
  return std::all_of(world_.vms.begin(), world_.vms.end(),
                     [&](const Vm& vm) { return world_.entity->places.at(vm.name) == vm.server; });
}

}  // namespace sami::sim
