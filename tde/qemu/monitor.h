// What the gate makes of one VM's QEMUs: fed with what their QMP monitors say at both ends, and with what the gate
// machine tells the hypervisor, it says which commands go where and what happened to the VM. docs/qemu.md has the
// whole story.
//
// The rules:
// - The source is the end whose migration is under way; the destination is the end that takes an incoming migration:
//   the one whose copying is active, or the only one that waits for one. Only then is the move announced.
// - From the beginning until MayPause (or until nothing is to be waited for) the source copies slowly: it keeps
// running.
// - At pre-switchover the VM does not run. It goes on when told to Continue, and back when told to Cancel, when the
//   destination's QEMU is gone, or when nothing was told in time and the policy is to cancel.
// - Outcome at destination: it runs there, or its incoming migration is completed. Outcome at source: the migration was
//   cancelled or has failed, or it runs there in another process than the one that migrated. Nothing else is an
//   outcome, least of all a monitor that does not answer.
// - A VM that is found running where nobody expected it has MOVED.
//
// Pure: no I/O, no clock. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "protocol/gate.h"
#include "runtime/clock.h"

namespace sami::tde::qemu {

// `status` of query-status, as far as it matters. Stopped: "paused", "finish-migrate", "prelaunch" and the like.
enum class RunState { Unknown, InMigrate, Running, Stopped, PostMigrate };
RunState run_state(std::string_view status);
// `status` of query-migrate and of MIGRATION events. What QEMU does after a switchover of another kind is Active.
enum class Migration { Unknown, None, Setup, Active, PreSwitchover, Device, Completed, Cancelling, Cancelled, Failed };
Migration migration(std::string_view status);

struct MonitorConfig {
  std::string subject_id;
  std::vector<std::string> servers;              // where it has a QMP socket; at least two
  std::int64_t precopy_bandwidth = 1024 * 1024;  // octets per second, until the destination stands by
  std::int64_t full_bandwidth = 0;               // from then on; 0: what QEMU had before
  protocol::NoVerdictPolicy no_verdict = protocol::NoVerdictPolicy::Cancel;
  Duration paused_deadline = std::chrono::milliseconds(3500);  // longer than the gate machine's: it comes first
  Duration poll_interval = std::chrono::milliseconds(500);     // of both ends while a move is open
};

namespace monitor_event {
struct Connected {
  std::string server;
};
struct Disconnected {
  std::string server;
};  // nobody answers there
struct StatusRead {
  std::string server;
  RunState state;
};
struct MigrationRead {
  std::string server;
  Migration status;
};
struct BandwidthRead {
  std::string server;
  std::int64_t octets_per_second;
};
struct Stopped {
  std::string server;
};  // QMP events STOP, RESUME and MIGRATION
struct Resumed {
  std::string server;
};
struct MigrationChanged {
  std::string server;
  Migration status;
};
struct Refused {
  std::string server, command, reason;
};                    // a command was
struct Announced {};  // the announcement was taken
struct NotAnnounced {
  enum class Why { NotNow, NothingToMove, Refused } why;
  std::string reason;
};
struct Adopted {
  std::string source, destination;
};  // a move that was open when this process began
struct Told {
  protocol::HypervisorInstruction::Kind what;
};
struct Tick {};
}  // namespace monitor_event
using MonitorEvent = std::variant<monitor_event::Connected, monitor_event::Disconnected, monitor_event::StatusRead,
                                  monitor_event::MigrationRead, monitor_event::BandwidthRead, monitor_event::Stopped,
                                  monitor_event::Resumed, monitor_event::MigrationChanged, monitor_event::Refused,
                                  monitor_event::Announced, monitor_event::NotAnnounced, monitor_event::Adopted,
                                  monitor_event::Told, monitor_event::Tick>;

struct MonitorCommand {
  enum class Kind {
    Connect,  // at once, it matters now
    Prepare,  // migrate-set-capabilities events, pause-before-switchover
    ReadStatus,
    ReadMigration,
    ReadBandwidth,
    SetBandwidth,  // value
    Continue,      // migrate-continue
    Cancel,        // migrate_cancel
  };
  Kind kind = Kind::ReadStatus;
  std::string server;
  std::int64_t value = 0;
  friend bool operator==(const MonitorCommand&, const MonitorCommand&) = default;
};
std::string to_string(const MonitorCommand& command);

// What happened to the VM: VmPaused, VmResumedAtDestination, VmResumedAtSource, MoveBegan (twice: as announced, or as
// noticed afterwards).
struct MonitorReport {
  enum class Kind { Announced, Paused, AtDestination, AtSource, Moved };
  Kind kind = Kind::Announced;
  std::string destination;  // of Announced and Moved
  std::string why;
  friend bool operator==(const MonitorReport& a, const MonitorReport& b) {
    return a.kind == b.kind && a.destination == b.destination;
  }
};

struct MonitorStep {
  std::vector<MonitorCommand> commands;
  std::vector<MonitorReport> reports;
  std::vector<std::string> notes;  // for the log
};

class Monitor {
 public:
  explicit Monitor(MonitorConfig config);

  // place: the server where the VM is as far as the topology knows.
  MonitorStep step(Instant now, const std::string& place, const MonitorEvent& event);
  Instant next_deadline() const;
  bool moving() const { return move_.has_value(); }

 private:
  enum class Presence { Unknown, Present, Absent };
  struct End {
    Presence presence = Presence::Unknown;
    RunState run = RunState::Unknown;
    Migration migration = Migration::Unknown;
  };
  struct Move {
    std::string source;
    std::string destination;  // empty: not known yet
    bool asked_to_announce = false;
    bool announced = false;
    bool begun = false;       // seen under way
    bool held = false;        // copying slowly
    bool hold_again = false;  // the source may have forgotten
    bool may_pause = false;
    bool let_go = false;  // nothing is waited for
    bool cancel = false;
    bool go_on = false;
    bool paused_reported = false;
    bool continue_sent = false;
    bool cancel_sent = false;
    std::int64_t bandwidth = 0;  // before it was held
    Instant paused_at = Instant::never();
    Instant poll_at;
    Instant announce_at{INT64_MIN};
  };

  void on(const monitor_event::Connected& event);
  void on(const monitor_event::Disconnected& event);
  void on(const monitor_event::StatusRead& event) { runs(event.server, event.state); }
  void on(const monitor_event::MigrationRead& event) { ends_[event.server].migration = event.status; }
  void on(const monitor_event::BandwidthRead& event);
  void on(const monitor_event::Stopped& event) { runs(event.server, RunState::Stopped); }
  void on(const monitor_event::Resumed& event) { runs(event.server, RunState::Running); }
  void on(const monitor_event::MigrationChanged& event);
  void on(const monitor_event::Refused& event);
  void on(const monitor_event::Announced&);
  void on(const monitor_event::NotAnnounced& event);
  void on(const monitor_event::Adopted& event);
  void on(const monitor_event::Told& event);
  void on(const monitor_event::Tick&) {}

  void runs(const std::string& server, RunState state);
  void look(const std::string& place);
  void find_source();
  void find_destination();
  void drive();
  void steer(const End& source);
  bool conclude();
  void notice_moved(const std::string& place);
  void expect_at(const std::string& server);
  void apply_policy(const std::string& why);
  void poll();
  void hold();
  void restore();
  void tell(MonitorCommand::Kind kind, const std::string& server, std::int64_t value = 0);
  void note(std::string text) { step_->notes.push_back(std::move(text)); }
  const End& end_of(const std::string& server) const;

  MonitorConfig config_;
  std::map<std::string, End> ends_;
  std::optional<Move> move_;
  std::string moved_to_;  // reported last, as the outcome of a move or as MOVED
  Instant moved_again_at_{INT64_MIN};
  Instant now_;
  MonitorStep* step_ = nullptr;
};

}  // namespace sami::tde::qemu
