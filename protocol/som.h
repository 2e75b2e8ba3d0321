// The State Orchestration Master's machine: all migrations of all subjects.
//
// States and transitions: ARCHITECTURE.md "SOM". Pure, see machine.h. Not thread-safe; one step at a time. It never
// decodes state: a chunk goes from UploadState to DownloadState as bytes, within the step that received it, and
// nothing of it is kept.
#pragma once

#include <memory>
#include <variant>

#include "interfaces/if_m_a/if_m_a.pb.h"
#include "interfaces/if_m_t/if_m_t.pb.h"
#include "protocol/journal.pb.h"
#include "protocol/machine.h"

namespace sami::protocol {

struct SomConfig {
  std::string identity;
  std::vector<std::uint32_t> protocol_versions = {1};
  // Which classes every migration carries. A class that a host does not have is a finding (essential: no-go).
  std::vector<common::v1::ClassRequirement> classes;
  std::uint32_t max_migrations = 1000;          // open at once
  std::uint32_t max_transfers = 64;             // per migration
  std::uint32_t lease_ms = 120'000;
  std::uint32_t grace_ms = 2'000;               // the source sweeps for so long
  std::uint32_t heartbeat_interval_ms = 2'000;
  Duration repeat_interval = std::chrono::milliseconds(500);
  Duration prepare_deadline = std::chrono::seconds(10);
  Duration precopy_deadline = std::chrono::seconds(300);
  Duration standby_deadline = std::chrono::seconds(600);   // without PAUSED or an outcome: no-go, then in doubt
  Duration switch_deadline = std::chrono::seconds(2);      // PAUSED to vote; shorter than the gate's verdict deadline
  Duration completion_deadline = std::chrono::seconds(60); // outcome known to all ready; restarts on progress
  Duration outcome_deadline = std::chrono::seconds(30);    // vote to outcome; then IN_DOUBT
  Duration release_deadline = std::chrono::seconds(30);    // then DONE_WITH_LOSS, naming who did not answer
  Duration rollback_deadline = std::chrono::seconds(30);   // then ROLLED_BACK, naming who did not answer; they are
                                                           // told again whenever they register
  std::uint32_t keep_ended = 1000;              // ended migrations that are remembered
};

namespace som_event {
// host and tde come from the certificate, never from the message. Authorize.identity must name them all the same:
// "spiffe://<domain>/sami/soa/<host>", ".../sami/tde/<tde>". Which subjects a TDE may notify for the shell checks.
struct AgentConnected { std::string host; };
struct AgentDisconnected { std::string host; };
struct FromAgent { std::string host; if_m_a::v1::AgentMessage message; };
struct TdeConnected { std::string tde; };
struct TdeDisconnected { std::string tde; };
struct FromTde { std::string tde; if_m_t::v1::TdeMessage message; };
struct Tick {};
// Operator. Each is answered by an OperatorReply with the same id, in the same step.
struct Abort { std::uint64_t id = 0; std::string migration_id; std::string actor; std::string reason; };
struct Resolve { std::uint64_t id = 0; std::string migration_id; common::v1::Outcome outcome{}; std::string actor; };
struct Force { std::uint64_t id = 0; std::string migration_id; std::string actor; };
struct Drain { std::uint64_t id = 0; std::string host; bool on = true; std::string actor; };  // takes no new transfers
}  // namespace som_event
using SomEvent =
    std::variant<som_event::AgentConnected, som_event::AgentDisconnected, som_event::FromAgent,
                 som_event::TdeConnected, som_event::TdeDisconnected, som_event::FromTde, som_event::Tick,
                 som_event::Abort, som_event::Resolve, som_event::Force, som_event::Drain>;

struct OperatorReply {
  std::uint64_t id = 0;
  std::string error;                            // empty: done
};
struct SomStep {
  std::vector<JournalWrite> journal;
  struct ToAgent { std::string host; if_m_a::v1::MasterMessage message; };
  struct ToTde { std::string tde; if_m_t::v1::MasterMessage message; };
  std::vector<ToAgent> to_agents;               // to a disconnected host: dropped
  std::vector<ToTde> to_tdes;
  std::vector<AuditEntry> audit;
  std::vector<OperatorReply> replies;
  std::vector<std::string> changed;             // migrations that a watcher wants to see again
};

struct HostView {
  std::string host;
  bool connected = false;
  bool drained = false;
  if_m_a::v1::Register profile;
};
struct SubjectView {
  journal::SubjectRecord record;
  std::optional<common::v1::Subject> subject;   // from inventory or a migration
  std::string tde;
};

class Som {
 public:
  // wall is what a step's timeline entries use: set_wall() before each step (time for people, never for decisions).
  Som(SomConfig config, const JournalImage& journal, Instant now);
  ~Som();
  Som(Som&&) noexcept;
  Som& operator=(Som&&) noexcept;

  void set_wall(WallTime wall);
  // For migrations that begin from now on; the open ones keep theirs.
  void set_classes(std::vector<common::v1::ClassRequirement> classes);
  SomStep step(Instant now, SomEvent event);
  Instant next_deadline() const;

  // For the operator interface; valid until the next step.
  std::vector<HostView> hosts() const;
  std::vector<SubjectView> subjects() const;
  std::vector<const journal::Migration*> migrations() const;   // open and remembered, by id
  const journal::Migration* find(const std::string& migration_id) const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

std::string_view to_string(journal::MigrationState state);
bool is_final(journal::MigrationState state);
bool may_follow(journal::MigrationState from, journal::MigrationState to);  // the transition table of ARCHITECTURE.md

}  // namespace sami::protocol
