// A hypervisor as the gate sees it: what it can be asked to do with a VM that is being moved, and how it says what
// happened. QEMU's words: begin is `migrate` with pause-before-switchover, pause lets it reach `pre-switchover`,
// switch_over is `migrate-continue`, cancel is `migrate_cancel`.
//
// Threading: everything on the owner's loop. No call blocks; what it led to is reported later (or within the call)
// as a gate event. Every call is idempotent: the gate repeats what was not answered.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "protocol/gate.h"
#include "runtime/result.h"

namespace sami::tde {

struct Move {
  std::string notification_id;
  std::string subject_id;
  std::string source_place;
  std::string destination_place;
};

enum class VmPlace {
  Copying,         // it runs at the source, and the move goes on
  AtSource,        // it runs there, and the move is over
  AtDestination,   // it runs there
  Paused,          // it runs nowhere, and can still go either way
  Unknown,         // the hypervisor cannot say
};
std::string_view to_string(VmPlace place);

class Hypervisor {
 public:
  // Takes VmPaused, VmResumedAtDestination, VmResumedAtSource and PlaceUnknown.
  using Report = std::function<void(protocol::GateEvent)>;

  virtual ~Hypervisor() = default;
  // The copying of memory begins; the VM runs at the source. Error: the move was not begun, and why.
  virtual Result<void> begin(const Move& move, Report report) = 0;
  // The destination stands by: the VM may be paused as soon as the rest of its memory is small enough.
  virtual void pause(const std::string& notification_id) = 0;
  virtual void switch_over(const std::string& notification_id) = 0;
  virtual void cancel(const std::string& notification_id) = 0;
  virtual VmPlace place(const std::string& notification_id) = 0;
  // The migration has ended, or SAMI takes no part in it: nothing more will be asked.
  virtual void forget(const std::string& notification_id) = 0;
};

// Carries an instruction of the gate out; the answer to FindOut goes to report.
void carry_out(const protocol::HypervisorInstruction& instruction, Hypervisor& hypervisor,
               const Hypervisor::Report& report);

// ---- For tests: a hypervisor that does what it is told, or does not.
struct HypervisorScript {
  enum class OnMayPause { Pause, Ignore, Cancel, SwitchOver, Die };   // SwitchOver: without a pause that anybody saw
  enum class OnVerdict { Obey, GoBack, SwitchOver, Ignore, Die };
  OnMayPause on_may_pause = OnMayPause::Pause;
  OnVerdict on_continue = OnVerdict::Obey;
  OnVerdict on_cancel = OnVerdict::Obey;
  VmPlace found_after_death = VmPlace::Unknown;                       // what place() says from then on
};

class SimulatedHypervisor : public Hypervisor {
 public:
  explicit SimulatedHypervisor(HypervisorScript script) : script_(script) {}

  Result<void> begin(const Move& move, Report report) override;
  void pause(const std::string& notification_id) override;
  void switch_over(const std::string& notification_id) override;
  void cancel(const std::string& notification_id) override;
  VmPlace place(const std::string& notification_id) override;
  void forget(const std::string& notification_id) override;

  // What it does by itself, at any moment.
  void cancel_by_itself(const std::string& notification_id) { arrive(notification_id, VmPlace::AtSource); }
  void die() { dead_ = true; }
  bool dead() const { return dead_; }
  bool knows(const std::string& notification_id) const { return moves_.contains(notification_id); }

 private:
  struct Running {
    Report report;
    VmPlace place = VmPlace::Copying;
    bool ended = false;
  };
  Running* open_move(const std::string& notification_id);
  void arrive(const std::string& notification_id, VmPlace place);
  void follow_verdict(const std::string& notification_id, HypervisorScript::OnVerdict reaction, VmPlace obedient);

  HypervisorScript script_;
  std::map<std::string, Running> moves_;
  bool dead_ = false;
};

}  // namespace sami::tde
