// The inside of the SOM's machine: sessions, subjects, and which event is about which migration. Private to protocol/.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "protocol/som_migration.h"

namespace sami::protocol {

class Som::Implementation {
 public:
  Implementation(SomConfig config, const JournalImage& journal, Instant now);

  SomStep step(Instant now, SomEvent event);

  SomConfig config_;
  WallTime wall_ = 0;
  Peers peers_;
  std::set<std::string> drained_;
  std::map<std::string, journal::SubjectRecord> subjects_;
  struct Place {
    common::v1::Subject subject;
    std::string tde;
  };
  std::map<std::string, Place> inventory_;
  std::map<std::string, std::unique_ptr<MigrationRun>> runs_;
  Instant next_deadline() const;

 private:
  using Notify = if_m_t::v1::Notify;

  // som.cpp
  void on(const som_event::AgentConnected& event);
  void on(const som_event::AgentDisconnected& event);
  void on(const som_event::FromAgent& event);
  void on(const som_event::TdeConnected& event);
  void on(const som_event::TdeDisconnected& event);
  void on(const som_event::FromTde& event);
  void on(const som_event::Tick&);
  void on(const som_event::Abort& event);
  void on(const som_event::Resolve& event);
  void on(const som_event::Force& event);
  void on(const som_event::Drain& event);
  void authorize(const std::string& host, const if_m_a::v1::Authorize& authorize);
  void register_agent(const std::string& host, const if_m_a::v1::Register& profile);
  void take_list(const std::string& host, const google::protobuf::RepeatedPtrField<if_m_a::v1::TransferStatus>& open);
  void transfer_message(const std::string& host, const if_m_a::v1::AgentMessage& message);
  void send_heartbeats();
  void drive(MigrationRun& run);
  void finish(MigrationRun& run);
  void update_holders(const MigrationRun& run);
  void prune();
  void save();
  void save_som();
  void ignored(const std::string& who, const std::string& why);
  MigrationRun* find_run(const std::string& id);
  SomContext context() { return {config_, peers_, now_, wall_, *step_}; }
  void reply(std::uint64_t id, std::string error) { step_->replies.push_back({id, std::move(error)}); }

  // som_notifications.cpp
  void authorize_tde(const std::string& tde, const if_m_t::v1::Authorize& authorize);
  void take_inventory(const std::string& tde, const if_m_t::v1::Inventory& inventory);
  void take_notification(const std::string& tde, const Notify& notify);
  void take_phase(MigrationRun& run, const std::string& tde, const Notify& notify);
  void begin(const std::string& tde, const Notify& notify);
  bool busy(const std::string& tde, const Notify& notify);
  std::string refusal(const Notify& notify) const;
  std::string address_conflict(common::v1::Subject& subject, bool drop) const;
  void add_leftovers(journal::Migration& migration, const journal::SubjectRecord& subject);
  void acknowledge(const std::string& tde, const Notify& notify, const std::string& migration_id,
                   const std::string& refused);
  MigrationRun* find_notified(const std::string& tde, const std::string& notification_id);

  Instant now_;
  SomStep* step_ = nullptr;
  std::uint64_t next_migration_ = 1;
  std::set<std::string> active_;                                        // open, or not settled
  std::deque<std::string> settled_;                                     // oldest first
  std::set<std::string> touched_;                                       // in this step
  std::map<std::pair<std::string, std::string>, std::string> refused_;  // (TDE, notification) -> reason
  std::deque<std::pair<std::string, std::string>> refused_order_;
  std::map<std::pair<std::string, std::string>, std::string> notified_;  // (TDE, notification) -> migration
  Instant heartbeat_at_ = Instant::never();
  Instant complaint_window_{INT64_MIN};
  std::uint32_t complaints_ = 0;
};

}  // namespace sami::protocol
