// One transfer of the agent's machine, as destination. States: ARCHITECTURE.md "SOA: one transfer, as destination".
// Private to protocol/; used by soa.cpp only.
#pragma once

#include <map>
#include <vector>

#include "protocol/received_class.h"
#include "protocol/soa_context.h"

namespace sami::protocol {

using KeysByClass = std::map<std::string, std::set<state::Key>>;

class DestinationTransfer final : public TransferBase {
 public:
  // inherited: keys that a superseded transfer of the same subject and context had installed; they are ours now.
  DestinationTransfer(SoaContext& context, journal::AgentTransfer record, const KeysByClass& inherited);
  // From the journal, after a restart; batches in the order in which they were written.
  DestinationTransfer(SoaContext& context, journal::AgentTransfer record,
                      const std::vector<journal::KeyBatch>& batches);

  void on_get_ready(SoaContext& context, const if_m_a::v1::GetReady& request);
  void on_chunk(SoaContext& context, const std::string& bytes);
  void on_release(SoaContext& context, const if_m_a::v1::Release& release);
  void on_rollback(SoaContext& context);
  void on_master_lost(SoaContext& context);

  void on_reply(SoaContext& context, const std::string& state_class, DriverReply reply) override;
  void tick(SoaContext& context) override;
  Instant next_deadline() const override;
  TransferView view() const override;
  bool leased() const override;
  KeysByClass ours() const;
  void erase_keys(SoaContext& context) const;

 private:
  // Calls that the classes make at the same time; over when every class that takes part is through.
  enum class Phase { Idle, Prepare, Verify, Install, Stale, Activate, Settle, Remove };
  enum class End { No, Released, RolledBack, Expired };

  struct Class {
    ReceivedClass book;
    bool staged = false;            // of the driver's profile
    std::vector<state::Key> stale;  // of the phase Stale: what is being deleted
    bool waiting = false;           // takes part in the phase, and is not through
    std::uint64_t call_id = 0;      // outstanding; 0: none
    std::uint32_t failures = 0;     // in a row
    Instant retry_at{INT64_MIN};
  };

  // soa_destination.cpp
  void make_classes(const SoaContext& context);
  void resume(SoaContext& context);
  void begin(SoaContext& context, Phase phase);
  bool takes_part(Phase phase, const Class& c) const;
  CallVariant call_for(Phase phase, const Class& c) const;
  void pump(SoaContext& context);
  void phase_done(SoaContext& context);
  void choose(SoaContext& context);
  void prepared(SoaContext& context);
  void verified(SoaContext& context);
  void commit(SoaContext& context);
  void finish(SoaContext& context);
  void fail(SoaContext& context);
  void give_up(Class& c, common::v1::FindingCode code, const std::string& detail) const;
  bool essential_given_up() const;
  void on_error(SoaContext& context, Class& c, const Error& error);
  void apply(SoaContext& context, Class& c, DriverReply& reply);
  void say_ready_to_receive(SoaContext& context) const;
  void say_feedback(SoaContext& context, if_m_a::v1::FeedbackStage stage) const;
  void ask_generation(SoaContext& context, std::uint64_t above);
  void fill_feedback();
  void write_keys(SoaContext& context, const std::string& state_class, const std::vector<state::Key>& intended,
                  const std::vector<state::Key>& present, const std::vector<state::Key>& removed,
                  const std::vector<state::Key>& installed = {});
  bool outstanding() const;
  bool holds() const { return record_.state() == if_m_a::v1::TRANSFER_STATE_READY; }
  Class* find(const std::string& state_class);

  // soa_destination_chunks.cpp
  void take_chunk(SoaContext& context, if_m_a::v1::StateChunk chunk);
  void begin_generation(SoaContext& context, std::uint64_t generation);
  void next_chunk(SoaContext& context);
  bool counts_as_ours(const Class& c, const state::Key& key) const;
  bool make_items(SoaContext& context, Class& c);
  void take_installed(SoaContext& context, Class& c, const std::vector<state::InstallResult>& results);
  void take_read_back(Class& c, const std::vector<state::Record>& found);
  void chunk_in_place(SoaContext& context);
  void round_in_place(SoaContext& context);
  void chunk_done(SoaContext& context);
  void say_progress(SoaContext& context, std::uint64_t generation, std::uint64_t through, std::uint32_t round) const;
  bool additive() const;  // what stands here is never updated or deleted

  std::vector<Class> classes_;
  Phase phase_ = Phase::Idle;
  End end_ = End::No;
  std::uint32_t next_batch_ = 0;
  bool missing_ = false;  // Verify: something that was here is not
  bool activated_ = false;

  // the stream
  std::uint64_t generation_ = 0;
  std::uint64_t processed_ = 0;  // sequence
  std::uint32_t installed_round_ = 0;
  std::map<std::uint64_t, if_m_a::v1::StateChunk> waiting_chunks_;
  if_m_a::v1::StateChunk chunk_;  // in work
  bool chunk_stale_ = false;      // its generation has been left meanwhile
  bool snapshot_seen_ = false;    // in this generation
  std::vector<state::InstallItem> items_;
  std::vector<state::InstallItem> again_;                        // turned out to be ours: to be brought up to date
  std::vector<std::pair<state::Key, state::Digest>> read_back_;  // key, expected digest
  std::optional<Instant> gap_since_;
  Duration patience_ = std::chrono::milliseconds(1500);
  std::uint64_t residue_ = 0;
  std::uint64_t removed_ = 0;
  std::uint64_t adopted_ = 0;
  std::uint64_t generations_ = 0;
};

}  // namespace sami::protocol
