// One migration of the SOM's machine: its states, its transfers, what is outstanding and when it is repeated. Private
// to protocol/; used by som.cpp only.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "protocol/som.h"

namespace sami::protocol {

// The agents and TDEs as they are now; kept by som.cpp.
struct AgentSession {
  bool connected = false;
  bool authorized = false;
  bool registered = false;
  if_m_a::v1::Register profile;
};
struct TdeSession {
  bool connected = false;
  bool authorized = false;
};
struct Peers {
  std::map<std::string, AgentSession> agents;
  std::map<std::string, TdeSession> tdes;
  bool registered(const std::string& host) const;
  bool authorized_tde(const std::string& tde) const;
};

// One step, as a migration sees it.
struct SomContext {
  const SomConfig& config;
  const Peers& peers;
  Instant now;
  WallTime wall;
  SomStep& step;
};

enum class Side { Source, Destination };

class MigrationRun {
 public:
  // New or from the journal: deadlines start from full.
  MigrationRun(journal::Migration record, Instant now);

  const journal::Migration& record() const { return record_; }
  const std::string& id() const { return record_.id(); }
  bool final() const { return is_final(record_.state()); }
  // Final, and every agent has answered.
  bool settled() const;

  // ---- facts. Each is followed by drive() in the same step.
  void announced(SomContext& context);
  void paused(SomContext& context);
  void outcome(SomContext& context, common::v1::Outcome outcome, std::string_view word, bool by_operator);
  void doubt_answered(SomContext& context, const std::string& reason);
  std::string abort(SomContext& context, const std::string& actor, const std::string& reason);
  std::string force(SomContext& context, const std::string& actor);
  std::string resolve(SomContext& context, common::v1::Outcome outcome, const std::string& actor);
  void from_agent(SomContext& context, Side side, journal::TransferProgress& transfer,
                  const if_m_a::v1::AgentMessage& message);
  // The agent's list of what it has open is complete: what it lacks is lost there.
  void agent_lists(SomContext& context, const std::string& host,
                   const google::protobuf::RepeatedPtrField<if_m_a::v1::TransferStatus>& open);
  void agent_registered(const std::string& host);
  void tde_returned();

  // Takes every transition that is due and sends what is owed.
  void drive(SomContext& context);
  Instant next_deadline() const { return next_; }
  void add_alias(const std::string& tde, const std::string& notification_id, std::uint32_t sequence);
  void note_sequence(const std::string& tde, const std::string& notification_id, std::uint32_t sequence);
  std::uint32_t last_sequence(const std::string& tde, const std::string& notification_id) const;
  void say_concluded(SomContext& context) const;
  void say_to_tde(SomContext& context);  // what stands now: Standing, Verdict, OutcomeRequest, Concluded

  journal::TransferProgress* transfer(std::uint32_t index);
  bool take_dirty() { return std::exchange(dirty_, false); }

 private:
  // Of one side of a transfer; not journaled.
  struct Outgoing {
    Instant due{INT64_MIN};
    bool known = false;      // source: it has the transfer open
    bool finalized = false;  // source: Finalize was sent
  };
  struct Lane {
    Outgoing source;
    Outgoing destination;
    std::pair<std::uint64_t, std::uint64_t> progress;  // generation, sequence: the furthest seen
    bool destination_lost_it = false;                  // its next ReadyAndDownloadRequest is from the start
  };

  // som_migration.cpp
  void enter(SomContext& context, journal::MigrationState state);
  bool advance(SomContext& context);
  bool advance_preparing(SomContext& context);
  bool advance_switching(SomContext& context);
  bool advance_ready(SomContext& context);
  bool advance_releasing(SomContext& context);
  bool advance_rolling_back(SomContext& context);
  void consider_vote(SomContext& context);
  void vote(SomContext& context, common::v1::Vote vote, const std::string& reason);
  void start_deadline(const SomContext& context);
  void collect_missing(SomContext& context);
  void mark_unreachable(SomContext& context);
  bool essential(const std::string& state_class) const;
  std::string essential_failure() const;
  bool everything_here(const SomContext& context) const;
  bool all(bool (*done)(const journal::TransferProgress&), bool with_leftovers) const;
  bool expecting_outcome() const;
  void poke();
  void audit(SomContext& context, std::string event, std::string detail) const;
  void note(SomContext& context, const std::string& what);

  // som_agents.cpp
  void on_ready(SomContext& context, journal::TransferProgress& transfer,
                const if_m_a::v1::ReadyAndDownloadRequest& ready);
  void on_feedback(SomContext& context, Side side, journal::TransferProgress& transfer,
                   const if_m_a::v1::Feedback& feedback);
  void on_released(SomContext& context, Side side, journal::TransferProgress& transfer,
                   const if_m_a::v1::Released& released);
  void on_rolled_back(Side side, journal::TransferProgress& transfer, const if_m_a::v1::RolledBack& rolled_back);
  void relay_chunk(SomContext& context, journal::TransferProgress& transfer, const if_m_a::v1::UploadState& upload);
  void refuse_chunk(SomContext& context, journal::TransferProgress& transfer, std::size_t octets);
  void relay_progress(SomContext& context, journal::TransferProgress& transfer, const if_m_a::v1::Progress& progress);
  void withdraw_ready(SomContext& context, journal::TransferProgress& transfer, const std::string& why);
  void send_due(SomContext& context);
  bool wants(const SomContext& context, const journal::TransferProgress& transfer, Side side) const;
  bool wants_source(const journal::TransferProgress& transfer, journal::MigrationState state) const;
  bool needs_upload(const journal::TransferProgress& transfer) const;
  bool wants_destination(const SomContext& context, const journal::TransferProgress& transfer,
                         journal::MigrationState state) const;
  void send_source(SomContext& context, journal::TransferProgress& transfer, Lane& lane);
  void send_destination(SomContext& context, journal::TransferProgress& transfer);
  void send_upload(SomContext& context, const journal::TransferProgress& transfer) const;
  void send_release(SomContext& context, journal::TransferProgress& transfer, Side side);
  bool tde_is_owed() const;
  bool in_outcome_state() const;  // RELEASING or later
  Duration repeat_after(const SomContext& context) const;
  Lane& lane(const journal::TransferProgress& transfer) { return lanes_[transfer.plan().index()]; }
  const Lane& lane(const journal::TransferProgress& transfer) const { return lanes_[transfer.plan().index()]; }
  bool leftovers_may_run() const;
  void plan_wakeup(const SomContext& context);
  if_m_a::v1::MasterMessage& to_agent(SomContext& context, const std::string& host) const;
  common::v1::TransferReference reference(const journal::TransferProgress& transfer) const;

  journal::Migration record_;
  std::vector<Lane> lanes_;
  bool dirty_ = true;
  bool deadline_set_ = false;
  bool deadline_passed_ = false;
  Instant state_deadline_ = Instant::never();
  Instant halfway_ = Instant::never();  // of RELEASING: from here on nobody waits for the other side
  Instant outcome_deadline_ = Instant::never();
  Instant tde_due_{INT64_MIN};
  Instant next_{INT64_MIN};
};

// Of a transfer.
bool is_prepared(const journal::TransferProgress& transfer);
bool is_standing_by(const journal::TransferProgress& transfer);
bool is_ready_or_failed(const journal::TransferProgress& transfer);

}  // namespace sami::protocol
