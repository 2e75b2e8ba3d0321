// The gate: the part of a TDE beside a hypervisor. It turns what the hypervisor does into notifications, and the
// verdict into "continue" or "cancel". One machine holds all moves of one TDE.
//
// States and transitions: ARCHITECTURE.md "Gate". Pure, see machine.h. Not thread-safe; one step at a time.
#pragma once

#include <memory>
#include <variant>

#include "interfaces/if_m_t/if_m_t.pb.h"
#include "protocol/journal.pb.h"
#include "protocol/machine.h"

namespace sami::protocol {

enum class GateState : std::uint32_t {
  Announced = 1,     // the VM runs at the source; the SOM is preparing
  StandingBy = 2,    // the destination can take over: the hypervisor may pause the VM
  Paused = 3,        // the VM does not run; waiting for the verdict
  Continuing = 4,    // told the hypervisor to go on
  Cancelling = 5,    // told the hypervisor to go back
  Concluding = 6,    // the outcome is known and is being notified
};
std::string_view to_string(GateState state);
bool may_follow(GateState from, GateState to);  // the transition table of ARCHITECTURE.md

// What happens to a VM that is paused when no verdict comes in time.
enum class NoVerdictPolicy { Continue, Cancel };

struct GateConfig {
  std::string identity;
  std::vector<std::uint32_t> protocol_versions = {1};
  std::vector<std::string> subjects;
  std::string software_version;
  Duration standby_deadline = std::chrono::seconds(300);  // ANNOUNCED to standby; then the policy applies
  Duration verdict_deadline = std::chrono::seconds(3);    // PAUSED to verdict; then the policy applies
  NoVerdictPolicy no_verdict = NoVerdictPolicy::Cancel;
  Duration repeat_interval = std::chrono::milliseconds(500);
  std::uint32_t max_moves = 256;
};

namespace gate_event {
struct Connected {};                             // to the SOM
struct Disconnected {};
struct FromMaster { if_m_t::v1::MasterMessage message; };  // PathQuery and MoveRequest are the shell's, not ours
// From the hypervisor, or from whoever notifies for it. notification_id is chosen by the caller and names the move.
struct MoveBegan { if_m_t::v1::Notify announcement; };     // phase ANNOUNCED, MOVED or PATH_FAILED; transfers filled in
struct VmPaused { std::string notification_id; };
struct VmResumedAtDestination { std::string notification_id; };
struct VmResumedAtSource { std::string notification_id; }; // cancelled, failed, or went back against the verdict
struct PlaceUnknown { std::string notification_id; std::string reason; };  // answer to FindOut: cannot say
struct Tick {};
struct JournalUnavailable {};                   // the shell's journal keeps failing: only safe effects, nothing durable
}  // namespace gate_event
using GateEvent = std::variant<gate_event::Connected, gate_event::Disconnected, gate_event::FromMaster,
                               gate_event::MoveBegan, gate_event::VmPaused, gate_event::VmResumedAtDestination,
                               gate_event::VmResumedAtSource, gate_event::PlaceUnknown, gate_event::Tick,
                               gate_event::JournalUnavailable>;

// What the hypervisor is told. Repeated until it reports; acting twice on the same is harmless.
struct HypervisorInstruction {
  enum class Kind {
    MayPause,        // the destination stands by
    Continue,        // switch over
    Cancel,          // go back to the source
    FindOut,         // where does the VM run? answered by VmResumedAt..., VmPaused or PlaceUnknown
    Concluded,       // the migration has ended; detail has the final state
    Refused,         // the SOM refused the announcement; detail says why. The hypervisor may go on without SAMI.
  };
  Kind kind = Kind::FindOut;
  std::string notification_id;
  std::string detail;
};

struct GateStep {
  std::vector<JournalWrite> journal;
  std::vector<if_m_t::v1::TdeMessage> messages;  // to the SOM; dropped while disconnected
  std::vector<HypervisorInstruction> instructions;
  std::vector<AuditEntry> audit;
};

struct MoveView {
  journal::GateRecord record;
  GateState state = GateState::Announced;
};

class Gate {
 public:
  // After a restart every move that was open is asked about with FindOut in the first step.
  Gate(GateConfig config, const JournalImage& journal);
  ~Gate();
  Gate(Gate&&) noexcept;
  Gate& operator=(Gate&&) noexcept;

  GateStep step(Instant now, GateEvent event);
  Instant next_deadline() const;
  bool authorized() const;
  std::vector<MoveView> moves() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami::protocol
