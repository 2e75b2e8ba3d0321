// The shell around the SOM's machine: it owns the machine, its journal and the sessions with agents and TDEs.
//
// One event at a time: step, commit the step's journal writes durably, write its audit entries, send its messages
// (protocol/machine.h). A step without journal writes, such as a relayed chunk, never touches the disk. If a commit
// fails the step is discarded, every session is closed and the machine starts again from the journal, with bounded
// backoff; until then machine() is null and peers that connect are turned away. The process stays.
//
// Loop thread only. Blocks for journal commits.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "interfaces/transport/transport.h"
#include "protocol/som.h"
#include "runtime/journal.h"
#include "runtime/log.h"
#include "runtime/loop.h"
#include "som/access.h"
#include "som/audit_trail.h"
#include "som/config.h"
#include "som/counters.h"
#include "som/problem.h"
#include "som/session_table.h"

namespace sami::som {

// What the shell's owner may want to know. Called after the step that caused it was carried out.
class ShellObserver {
 public:
  virtual ~ShellObserver() = default;
  virtual void on_changed(const std::string& migration_id) = 0;
  virtual void on_restarted() = 0;     // the machine was rebuilt: migrations may have gone back to what was journaled
  virtual void on_announcement_refused(const std::string& tde, const std::string& notification_id,
                                       const std::string& reason) = 0;
  virtual void on_agent_gone(const std::string& host) = 0;
  virtual void on_tde_gone(const std::string& tde) = 0;
  // Answers to the operator's own questions; the machine does not see them.
  virtual void on_state_reply(const std::string& host, if_m_a::v1::StateReply reply) = 0;
  virtual void on_path_reply(const std::string& tde, if_m_t::v1::PathReply reply) = 0;
  virtual void on_move_answer(const std::string& tde, if_m_t::v1::MoveAnswer answer) = 0;
};

class Shell {
 public:
  // All but settings are borrowed and must outlive the shell.
  Shell(Settings settings, Loop& loop, Journal& journal, AuditTrail& audit, const Clock& clock, Log log);
  ~Shell();
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  // Makes the machine from the journal. Once. Errors: Failed, Corrupt.
  Result<void> start();
  // For the transport. The server must be gone before the shell is.
  transport::MasterHandlers handlers();
  void observe(ShellObserver* observer) { observer_ = observer; }
  // Takes what may change while it runs: classes, tdes, agents. Sessions that are no longer allowed are closed.
  void reload(const Settings& settings);

  // Null while the journal cannot be used. Valid until the next event.
  const protocol::Som* machine() const { return machine_ ? &*machine_ : nullptr; }
  const Settings& settings() const { return settings_; }
  const Counters& counters() const { return counters_; }
  const std::string& last_error() const { return last_error_; }
  std::vector<std::string> connected_tdes() const;    // authorized ones

  // Feeds one of the operator's events (Abort, Resolve, Force, Drain), audits it as `what` by the event's actor, and
  // returns what the machine said. Problems: FailedPrecondition, Unavailable.
  Answer<void> command(std::uint64_t id, protocol::SomEvent event, const std::string& actor, const std::string& what,
                       const std::string& migration_id);
  std::uint64_t next_id() { return ++last_id_; }
  // For the operator's own questions. False: there is no session with that peer.
  bool send_to_agent(const std::string& host, const if_m_a::v1::MasterMessage& message);
  bool send_to_tde(const std::string& tde, const if_m_t::v1::MasterMessage& message);
  AuditTrail& audit() { return audit_; }

 private:
  // shell.cpp: the machine and its journal
  std::optional<protocol::SomStep> feed(protocol::SomEvent event);
  bool commit(const std::vector<JournalWrite>& writes);
  void deliver(const protocol::SomStep& step);
  void count_changes(const std::vector<std::string>& changed);
  void crash(const Error& error);
  Result<void> rebuild();
  void rebuild_later();
  void arm();

  // shell_sessions.cpp: the peers
  void agent_opened(std::shared_ptr<transport::AgentSession> session);
  void agent_said(const std::shared_ptr<transport::AgentSession>& session, if_m_a::v1::AgentMessage message);
  void tde_opened(std::shared_ptr<transport::TdeSession> session);
  void tde_said(const std::shared_ptr<transport::TdeSession>& session, if_m_t::v1::TdeMessage message);
  void from_tde(const transport::Identity& peer, if_m_t::v1::TdeMessage message);
  void drop_agent(const std::string& host, const std::string& reason);
  void drop_tde(const std::string& tde, const std::string& reason);
  bool may_announce(const transport::Identity& tde, const if_m_t::v1::Notify& notify);
  void keep_allowed(const transport::Identity& tde, if_m_t::v1::Inventory& inventory);
  void note_refused(const std::string& peer, const std::string& reason);

  Settings settings_;
  Loop& loop_;
  Journal& journal_;
  AuditTrail& audit_;
  const Clock& clock_;
  Log log_;
  RateLimit refusals_;
  Access access_;
  ShellObserver* observer_ = nullptr;
  std::optional<protocol::Som> machine_;
  SessionTable<transport::AgentSession> agents_;
  SessionTable<transport::TdeSession> tdes_;
  std::map<std::string, protocol::journal::MigrationState> last_state_;
  Counters counters_;
  std::string last_error_;
  std::uint64_t last_id_ = 0;
  Duration backoff_;
  Loop::TimerId tick_ = 0;
  Instant tick_at_ = Instant::never();
  Loop::TimerId rebuild_timer_ = 0;
};

}  // namespace sami::som
