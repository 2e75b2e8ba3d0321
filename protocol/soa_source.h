// One transfer of the agent's machine, as source. States: ARCHITECTURE.md "SOA: one transfer, as source".
// Private to protocol/; used by soa.cpp only.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "protocol/soa_context.h"
#include "protocol/upload_stream.h"

namespace sami::protocol {

class SourceTransfer final : public TransferBase {
 public:
  // recovered: from the journal, after a restart.
  SourceTransfer(SoaContext& context, journal::AgentTransfer record, bool recovered);

  void on_upload_request(SoaContext& context, const if_m_a::v1::UploadRequest& request);
  void on_finalize(SoaContext& context, const if_m_a::v1::Finalize& finalize);
  void on_progress(SoaContext& context, const if_m_a::v1::Progress& progress);
  void on_release(SoaContext& context, const if_m_a::v1::Release& release);
  void on_rollback(SoaContext& context);

  void on_reply(SoaContext& context, const std::string& state_class, DriverReply reply) override;
  void tick(SoaContext& context) override;
  Instant next_deadline() const override;
  TransferView view() const override;
  bool leased() const override;
  void say_failed(SoaContext& context) const;

 private:
  // What the classes do together. Each is a sequence of calls per class; it is over when all classes are through.
  enum class Activity {
    Idle,
    Snapshot,  // follow, snapshot
    Delta,     // changes, read
    Final,     // barrier, changes, read
    Residue,   // changes, read; or follow, snapshot
    Poll,      // changes only: keeps the kernel's queue short
    Thaw,      // lower the barrier
    Stop,      // unfollow, lower the barrier
    Sweep,
  };
  enum class Call { None, Follow, Snapshot, Changes, Read, Finalize, LowerBarrier, Unfollow, Sweep };
  enum class End { No, Released, RolledBack, Forgotten };

  struct Class {
    std::string name;
    bool essential = false;
    bool needs_barrier = false;
    bool given_up = false;      // best effort, and its driver failed
    std::vector<Call> plan;     // of the activity, the next one first
    Call calling = Call::None;  // outstanding
    std::uint64_t call_id = 0;
    std::uint64_t serial = 0;  // of the activity that issued it
    std::vector<state::Key> reading;
    std::set<state::Key> dirty;
    std::map<state::Key, state::Digest> held;  // what the destination was told, in this generation
    state::Digest sum = 0;
    std::vector<state::Record> batch;  // gathered for the round
    bool following = false;
    bool changes_lost = false;  // a call that takes events failed: they may be gone
    bool sweep_failed = false;
    bool kept = false;           // the destination could not take it: its records stay
    std::uint32_t failures = 0;  // in a row
    Instant retry_at{INT64_MIN};
  };

  // soa_source.cpp
  bool still_sends() const;
  void choose(SoaContext& context);
  bool choose_ending(SoaContext& context);
  void finish(SoaContext& context);
  void release_now(SoaContext& context);
  void end_released(SoaContext& context);
  void fail(SoaContext& context, common::v1::ClassFeedback why);
  void start_generation(SoaContext& context, std::uint64_t above, const std::string& reason);
  void take_terms(SoaContext& context, common::v1::Outcome outcome, common::v1::ConflictRule rule);
  bool barrier_wanted(const Class& c) const;

  // soa_source_round.cpp
  void begin(SoaContext& context, Activity activity);
  std::vector<Call> plan_of(Activity activity, const Class& c) const;
  void pump(SoaContext& context);
  void issue(SoaContext& context, Class& c);
  void on_error(SoaContext& context, Class& c, Call call, const Error& error);
  bool apply(SoaContext& context, Class& c, Call call, DriverReply& reply);
  bool take_changes(SoaContext& context, Class& c, const state::Changes& changes);
  bool take_finalized(SoaContext& context, Class& c, Finalized finalized);
  bool take_snapshot(SoaContext& context, Class& c, std::vector<state::Record> records);
  void take_read(Class& c, std::vector<state::Record> records);
  bool acceptable(SoaContext& context, Class& c, const std::vector<state::Record>& records);
  void on_overrun(SoaContext& context);
  void close_round(SoaContext& context);
  void send_chunks(SoaContext& context);
  void repeat_chunks(SoaContext& context);

  std::vector<Class> classes_;
  UploadStream stream_;
  Activity activity_ = Activity::Idle;
  std::uint64_t serial_ = 0;
  std::uint32_t window_ = 1;
  Instant poll_due_{INT64_MIN};
  Instant repeat_due_ = Instant::never();
  Instant sweep_due_ = Instant::never();
  Instant grace_end_ = Instant::never();
  Instant sweep_begun_;
  bool snapshot_done_ = false;  // in this generation
  bool converged_ = false;      // the last round was
  bool final_begun_ = false;    // in this generation
  bool residue_begun_ = false;
  bool residue_full_ = false;  // changes were lost: only a snapshot is true
  bool thaw_ = false;          // no barrier any more
  bool stopped_ = false;
  bool recovered_ = false;  // and the master has not spoken since
  End end_ = End::No;
  bool destination_lost_ = false;
  std::uint32_t grace_ms_ = 0;
  bool release_heard_ = false;  // since the start
  std::uint64_t swept_ = 0;
  std::uint64_t residue_ = 0;
  std::uint64_t resyncs_ = 0;
};

}  // namespace sami::protocol
