// The hypervisor's part of a live migration in a lab: it tells the TDE what it does and does what the gate says, or
// not, when a test wants it to misbehave.
//
// Threading: one move at a time, on the caller's thread; move() blocks until the migration is concluded or the
// deadline has passed.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lab/gate_client.h"
#include "lab/lab.h"
#include "runtime/result.h"

namespace sami::lab {

// What it does other than it is told.
struct Misbehaviour {
  enum class At { Never, Announced, StandingBy, Paused, Instructed, Resumed };
  bool continue_on_cancel = false;   // goes on against the verdict
  bool cancel_on_continue = false;   // goes back against the verdict
  bool pause_without_leave = false;  // does not wait for MayPause
  At cancel_at = At::Never;          // gives the move up by itself on reaching this point (before Resumed)
  At die_at = At::Never;             // says and does nothing any more from this point on
};

struct MoveOptions {
  bool with_sami = true;
  bool force = false;
  std::chrono::milliseconds pause{0};         // the VM stays paused for at least so long
  std::chrono::milliseconds deadline{60000};  // for every single wait
  Misbehaviour misbehaviour;
  // Called on reaching each point, before anything else is done there; a test kills daemons in it.
  std::function<void(Misbehaviour::At)> on_reaching;
};

struct MoveStep {
  double milliseconds = 0;  // since the move began
  std::string what;
};

struct MoveReport {
  std::string vm;
  std::string source;
  std::string destination;
  std::string notification_id;
  std::string migration_id;
  bool moved = false;              // the VM runs at the destination
  bool died = false;               // as it was told to
  std::string instruction;         // "Continue", "Cancel", "Refused" or "": none was needed or came
  std::string final_state;         // of the migration: "DONE", "ROLLED_BACK", ...
  std::string detail;              // of a refusal
  double paused_milliseconds = 0;  // for which the VM did not run
  std::vector<MoveStep> timeline;
};

class LabHypervisor {
 public:
  // `gate` may be null when only moves without SAMI are wanted. Both must outlive this.
  LabHypervisor(Lab& lab, GateClient* gate) : lab_(lab), gate_(gate) {}

  // Errors: InvalidInput (no such VM or server, it is there already), Failed (the mechanics, or the gate's socket),
  // Retry (a deadline passed; the VM runs where place_of says).
  Result<MoveReport> move(const std::string& vm, const std::string& server, const MoveOptions& options);

 private:
  class Move;
  Lab& lab_;
  GateClient* gate_;
};

}  // namespace sami::lab
