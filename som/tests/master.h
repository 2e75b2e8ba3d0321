// A SOM in one process for tests: the shell over a journal in memory, with sessions that only remember what they were
// told. Peers are driven by hand; time is the loop's.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/journal.h"
#include "som/operator.h"
#include "som/shell.h"

namespace sami::som {

template <typename Outgoing>
class FakeSession final : public transport::Session<Outgoing> {
 public:
  FakeSession(std::string role, std::string name) : peer_{"dc.example", std::move(role), std::move(name)} {}
  void send(const Outgoing& message) override { sent.push_back(message); }
  void close(const std::string& reason) override {
    if (closed.empty()) closed = reason;
  }
  const transport::Identity& peer() const override { return peer_; }
  std::size_t queued_bytes() const override { return queued; }

  std::vector<Outgoing> sent;
  std::string closed;                  // why; empty: open
  std::size_t queued = 0;

 private:
  transport::Identity peer_;
};
using Agent = FakeSession<if_m_a::v1::MasterMessage>;
using Tde = FakeSession<if_m_t::v1::MasterMessage>;

inline common::v1::Subject vm1() {
  common::v1::Subject subject;
  subject.set_id("vm1");
  subject.set_kind(common::v1::SUBJECT_KIND_VM);
  auto& interface = *subject.add_interfaces();
  interface.set_vn_name("blue");
  interface.add_addresses(std::string("\x0a\x01\x01\x0a", 4));
  return subject;
}

inline common::v1::Transfer fw1_to_fw2() {
  common::v1::Transfer transfer;
  transfer.set_source_host("fw1");
  transfer.set_destination_host("fw2");
  transfer.set_disposition(common::v1::DISPOSITION_MOVE);
  return transfer;
}

inline if_m_a::v1::Register profile(const std::string& host) {
  if_m_a::v1::Register profile;
  profile.set_host(host);
  auto& state_class = *profile.add_classes();
  state_class.set_state_class("connection_tracking");
  state_class.set_representation("fake/1");
  for (const char* function : {"upload", "download", "follow"}) state_class.add_functions(function);
  auto& context = *profile.add_contexts();
  context.set_name("default");
  (*context.mutable_vn_zone())["blue"] = 0;
  profile.set_max_concurrent_transfers(16);
  return profile;
}

inline Settings settings() {
  Settings settings;
  settings.name = "som1";
  settings.domain = "dc.example";
  settings.machine.identity = "spiffe://dc.example/sami/som/som1";
  common::v1::ClassRequirement requirement;
  requirement.set_state_class("connection_tracking");
  requirement.set_essential(true);
  settings.machine.classes = {requirement};
  settings.tdes = {{"tde1", {"vm*"}}};
  settings.agents = {"fw*"};
  return settings;
}

// Everything but the transport. restart() is a crash of the process: only the journal and the trail remain.
class Master {
 public:
  explicit Master(Settings with = settings(), Duration deadline = std::chrono::seconds(5))
      : settings_(std::move(with)), deadline_(deadline) {
    restart();
  }

  void restart() {
    operations.reset();
    shell.reset();
    shell = std::make_unique<Shell>(settings_, loop, journal, trail, system_clock(), log);
    EXPECT_TRUE(shell->start());
    operations = std::make_unique<Operator>(*shell, loop, deadline_);
    handlers = shell->handlers();
  }

  std::shared_ptr<Agent> open_agent(const std::string& name) {
    auto session = std::make_shared<Agent>("soa", name);
    handlers.on_agent_open(session);
    return session;
  }
  void say(const std::shared_ptr<Agent>& from, if_m_a::v1::AgentMessage message) {
    handlers.on_agent_message(from, std::move(message));
  }
  std::shared_ptr<Tde> open_tde(const std::string& name) {
    auto session = std::make_shared<Tde>("tde", name);
    handlers.on_tde_open(session);
    return session;
  }
  void say(const std::shared_ptr<Tde>& from, if_m_t::v1::TdeMessage message) {
    handlers.on_tde_message(from, std::move(message));
  }

  template <typename Session>
  void authorize(const std::shared_ptr<Session>& session, const std::string& identity, std::uint32_t version = 1) {
    std::conditional_t<std::is_same_v<Session, Agent>, if_m_a::v1::AgentMessage, if_m_t::v1::TdeMessage> message;
    message.mutable_authorize()->set_identity(identity);
    message.mutable_authorize()->add_protocol_versions(version);
    say(session, std::move(message));
  }
  std::shared_ptr<Agent> registered_agent(const std::string& name) {
    auto session = open_agent(name);
    authorize(session, session->peer().uri());
    if_m_a::v1::AgentMessage message;
    *message.mutable_register_() = profile(name);
    say(session, std::move(message));
    return session;
  }
  std::shared_ptr<Tde> authorized_tde(const std::string& name = "tde1") {
    auto session = open_tde(name);
    authorize(session, session->peer().uri());
    return session;
  }
  void place(const std::shared_ptr<Tde>& tde, const common::v1::Subject& subject, const std::string& server) {
    if_m_t::v1::TdeMessage message;
    auto& entry = *message.mutable_inventory()->add_places();
    *entry.mutable_subject() = subject;
    entry.set_server(server);
    say(tde, std::move(message));
  }
  void announce(const std::shared_ptr<Tde>& tde, const common::v1::Subject& subject, const std::string& id = "n1") {
    if_m_t::v1::TdeMessage message;
    auto& notify = *message.mutable_notify();
    notify.set_notification_id(id);
    notify.set_sequence(1);
    notify.set_phase(if_m_t::v1::PHASE_ANNOUNCED);
    notify.set_cause(common::v1::CAUSE_VM_MIGRATION);
    *notify.mutable_subject() = subject;
    notify.set_source_place("server1");
    notify.set_destination_place("server2");
    *notify.add_transfers() = fw1_to_fw2();
    say(tde, std::move(message));
  }

  bool until(const std::function<bool()>& condition) { return loop.run_until(condition, std::chrono::seconds(10)); }
  bool host_connected(const std::string& name) {
    for (const auto& host : shell->machine()->hosts())
      if (host.host == name) return host.connected;
    return false;
  }
  std::vector<std::string> audited(const std::string& event) {
    std::vector<std::string> details;
    const auto records = trail.query({});
    for (const auto& record : *records)
      if (record.event == event) details.push_back(record.detail);
    return details;
  }

  Log log{LogLevel::Error, [](LogLevel, const std::string&) {}};
  Loop loop;
  MemoryJournal journal;
  std::unique_ptr<Audit> audit = make_memory_audit();
  AuditTrail trail{*audit, system_clock(), log};
  std::unique_ptr<Shell> shell;
  std::unique_ptr<Operator> operations;
  transport::MasterHandlers handlers;

 private:
  Settings settings_;
  Duration deadline_;
};

// The first message of the kind that `has` picks, or null.
template <typename Message>
const Message* first(const std::vector<Message>& sent, bool (Message::*has)() const) {
  for (const auto& message : sent)
    if ((message.*has)()) return &message;
  return nullptr;
}

}  // namespace sami::som
