#include "tde/hypervisor.h"

namespace sami::tde {

namespace event = protocol::gate_event;
using Kind = protocol::HypervisorInstruction::Kind;
using OnMayPause = HypervisorScript::OnMayPause;
using OnVerdict = HypervisorScript::OnVerdict;

namespace {

protocol::GateEvent event_for(VmPlace place, const std::string& id) {
  switch (place) {
    case VmPlace::AtSource: return event::VmResumedAtSource{id};
    case VmPlace::AtDestination: return event::VmResumedAtDestination{id};
    case VmPlace::Paused: return event::VmPaused{id};
    case VmPlace::Copying: return event::PlaceUnknown{id, "it runs at the source, and the move goes on"};
    case VmPlace::Unknown: break;
  }
  return event::PlaceUnknown{id, "the hypervisor cannot say where the VM runs"};
}

}  // namespace

std::string_view to_string(VmPlace place) {
  switch (place) {
    case VmPlace::Copying: return "at the source, still copying";
    case VmPlace::AtSource: return "at the source";
    case VmPlace::AtDestination: return "at the destination";
    case VmPlace::Paused: return "paused";
    case VmPlace::Unknown: break;
  }
  return "unknown";
}

void carry_out(const protocol::HypervisorInstruction& instruction, Hypervisor& hypervisor,
               const Hypervisor::Report& report) {
  const std::string& id = instruction.notification_id;
  switch (instruction.kind) {
    case Kind::MayPause: return hypervisor.pause(id);
    case Kind::Continue: return hypervisor.switch_over(id);
    case Kind::Cancel: return hypervisor.cancel(id);
    case Kind::FindOut: return report(event_for(hypervisor.place(id), id));
    case Kind::Concluded:
    case Kind::Refused: return hypervisor.forget(id);
  }
}

Result<void> SimulatedHypervisor::begin(const Move& move, Report report) {
  if (dead_) return failure(ErrorKind::Failed, "the hypervisor of " + move.source_place + " is dead");
  moves_.try_emplace(move.notification_id, Running{std::move(report), VmPlace::Copying, false});
  return {};
}

void SimulatedHypervisor::pause(const std::string& id) {
  Running* move = open_move(id);
  if (move == nullptr) return;
  switch (script_.on_may_pause) {
    case OnMayPause::Pause: move->place = VmPlace::Paused; return move->report(event::VmPaused{id});
    case OnMayPause::Ignore: return;
    case OnMayPause::Cancel: return arrive(id, VmPlace::AtSource);
    case OnMayPause::SwitchOver: return arrive(id, VmPlace::AtDestination);
    case OnMayPause::Die: return die();
  }
}

void SimulatedHypervisor::switch_over(const std::string& id) {
  follow_verdict(id, script_.on_continue, VmPlace::AtDestination);
}
void SimulatedHypervisor::cancel(const std::string& id) { follow_verdict(id, script_.on_cancel, VmPlace::AtSource); }

VmPlace SimulatedHypervisor::place(const std::string& id) {
  if (dead_) return script_.found_after_death;
  const auto move = moves_.find(id);
  return move == moves_.end() ? VmPlace::Unknown : move->second.place;
}

void SimulatedHypervisor::forget(const std::string& id) { moves_.erase(id); }

// Nothing, when it is dead or the VM has arrived somewhere.
SimulatedHypervisor::Running* SimulatedHypervisor::open_move(const std::string& id) {
  const auto move = moves_.find(id);
  return dead_ || move == moves_.end() || move->second.ended ? nullptr : &move->second;
}

void SimulatedHypervisor::arrive(const std::string& id, VmPlace place) {
  Running* move = open_move(id);
  if (move == nullptr) return;
  move->place = place;
  move->ended = true;
  move->report(event_for(place, id));
}

void SimulatedHypervisor::follow_verdict(const std::string& id, OnVerdict reaction, VmPlace obedient) {
  switch (reaction) {
    case OnVerdict::Obey: return arrive(id, obedient);
    case OnVerdict::GoBack: return arrive(id, VmPlace::AtSource);
    case OnVerdict::SwitchOver: return arrive(id, VmPlace::AtDestination);
    case OnVerdict::Ignore: return;
    case OnVerdict::Die: return die();
  }
}

}  // namespace sami::tde
