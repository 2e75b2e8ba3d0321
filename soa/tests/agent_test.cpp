// The agent over a journal and a transport in memory and a driver that a test plays, against a SOM played by hand.
#include "soa/agent.h"

#include <gmock/gmock.h>

#include "interfaces/transport/memory_transport.h"
#include "soa/tests/played_driver.h"

namespace sami::soa {
namespace {

namespace if_m_a = ::sami::if_m_a::v1;
namespace common = ::sami::common::v1;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

common::Subject vm(const std::string& id = "vm1") {
  common::Subject subject;
  subject.set_id(id);
  subject.set_kind(common::SUBJECT_KIND_VM);
  auto* interface = subject.add_interfaces();
  interface->set_vn_name("blue");
  interface->add_addresses(std::string("\x0a\x01\x01\x0a", 4));
  return subject;
}

class SoaAgent : public testing::Test {
 protected:
  SoaAgent() {
    config_.machine.host = "fw2";
    config_.machine.identity = "spiffe://dc.example/sami/soa/fw2";
    config_.machine.profile.set_host("fw2");
    auto* context = config_.machine.profile.add_contexts();
    context->set_name("default");
    (*context->mutable_vn_zone())["blue"] = 0;
    config_.machine.repeat_interval = std::chrono::milliseconds(20);
    config_.rebuild_delay = std::chrono::milliseconds(5);
    config_.maximum_rebuild_delay = std::chrono::milliseconds(20);
    serve();
    start();
  }
  ~SoaAgent() override { stop(); }

  void serve() {
    transport::MasterHandlers handlers;
    handlers.on_agent_open = [this](std::shared_ptr<transport::AgentSession> session) {
      session_ = std::move(session);
    };
    handlers.on_agent_message = [this](const auto&, if_m_a::AgentMessage message) { heard(std::move(message)); };
    handlers.on_agent_closed = [this](const auto& session, const auto&) {
      if (session == session_) session_.reset();
    };
    handlers.on_tde_open = [](const auto&) {};
    handlers.on_tde_message = [](const auto&, auto) {};
    handlers.on_tde_closed = [](const auto&, const auto&) {};
    handlers.on_refused = [](const auto&, const auto&) {};
    auto server = network_.serve("som:1", {"dc.example", "som", "som1"}, std::move(handlers), {});
    if (!server) throw std::runtime_error(server.error().message);
    server_ = std::move(*server);
  }
  void start() {
    client_ = network_.make_agent_client("som:1", {"dc.example", "soa", "fw2"}, "som1", {});
    agent_ = std::make_unique<Agent>(config_, AgentPorts{loop_,
                                                         system_clock(),
                                                         *journal_,
                                                         *audit_,
                                                         *client_,
                                                         {&driver_},
                                                         Log(LogLevel::Error, [](LogLevel, const std::string&) {})});
    agent_->start();
  }
  void stop() {
    agent_.reset();
    client_.reset();
  }
  // As after kill -9: nothing but the journal is left.
  void restart() {
    stop();
    journal_ = std::make_unique<MemoryJournal>(journal_->image());
    messages_.clear();
    start();
  }
  void heard(if_m_a::AgentMessage message) {
    if_m_a::MasterMessage reply;
    if (message.has_authorize()) {
      reply.mutable_authorized()->set_protocol_version(1);
      reply.mutable_authorized()->set_heartbeat_interval_ms(2000);
      session_->send(reply);
    }
    if (message.has_register_()) {
      reply.mutable_registered()->set_host("fw2");
      session_->send(reply);
    }
    messages_.push_back(std::move(message));
  }
  bool until(const std::function<bool()>& condition) { return loop_.run_until(condition, std::chrono::seconds(10)); }
  bool connected() {
    return until([this] { return agent_->status().connected; });
  }
  template <typename Predicate>
  const if_m_a::AgentMessage* received(Predicate predicate) {
    const auto found = [&] { return std::find_if(messages_.begin(), messages_.end(), predicate); };
    return until([&] { return found() != messages_.end(); }) ? &*found() : nullptr;
  }
  const if_m_a::AgentMessage* ready() {
    return received([](const auto& m) { return m.has_ready(); });
  }

  void send_get_ready(const std::string& migration = "m1", const std::string& subject = "vm1") {
    if_m_a::MasterMessage message;
    auto* get_ready = message.mutable_get_ready();
    auto* reference = get_ready->mutable_transfer();
    reference->set_migration_id(migration);
    reference->set_transfer(0);
    reference->set_epoch(1);
    reference->set_subject_id(subject);
    *get_ready->mutable_subject() = vm(subject);
    auto* plan = get_ready->mutable_plan();
    plan->set_source_host("fw1");
    plan->set_destination_host("fw2");
    plan->set_disposition(common::DISPOSITION_MOVE);
    auto* requirement = get_ready->add_classes();
    requirement->set_state_class("connection_tracking");
    requirement->set_essential(true);
    get_ready->set_cause(common::CAUSE_VM_MIGRATION);
    get_ready->set_conflict_rule(common::CONFLICT_RULE_PLANNED);
    get_ready->set_lease_ms(120'000);
    session_->send(message);
  }
  // All replies to the query, in order; the last of them says so.
  std::vector<if_m_a::StateReply> query(std::uint64_t id, const std::string& state_class = "",
                                        const std::string& context = "") {
    if_m_a::MasterMessage message;
    message.mutable_state_query()->set_query_id(id);
    *message.mutable_state_query()->mutable_subject() = vm();
    message.mutable_state_query()->set_state_class(state_class);
    message.mutable_state_query()->set_context(context);
    session_->send(message);
    const auto mine = [id](const auto& m) { return m.has_state_reply() && m.state_reply().query_id() == id; };
    received([&](const auto& m) { return mine(m) && m.state_reply().last(); });
    std::vector<if_m_a::StateReply> replies;
    for (const auto& reply : messages_) {
      if (mine(reply)) replies.push_back(reply.state_reply());
    }
    return replies;
  }

  Loop loop_;
  transport::MemoryNetwork network_{loop_};
  std::unique_ptr<transport::MemoryNetwork::Server> server_;
  AgentConfig config_;
  PlayedDriver driver_;
  std::unique_ptr<MemoryJournal> journal_ = std::make_unique<MemoryJournal>();
  std::unique_ptr<Audit> audit_ = make_memory_audit();
  std::unique_ptr<transport::AgentClient> client_;
  std::unique_ptr<Agent> agent_;
  std::shared_ptr<transport::AgentSession> session_;
  std::vector<if_m_a::AgentMessage> messages_;
};

TEST_F(SoaAgent, AuthorizesAndRegistersWhatItsDriversCanDo) {
  ASSERT_TRUE(connected());
  const auto* authorize = received([](const auto& m) { return m.has_authorize(); });
  ASSERT_NE(authorize, nullptr);
  EXPECT_EQ(authorize->authorize().identity(), "spiffe://dc.example/sami/soa/fw2");
  const auto* registration = received([](const auto& m) { return m.has_register_(); });
  ASSERT_NE(registration, nullptr);
  const auto& profile = registration->register_();
  EXPECT_EQ(profile.host(), "fw2");
  ASSERT_EQ(profile.classes_size(), 1);
  EXPECT_EQ(profile.classes(0).state_class(), "connection_tracking");
  EXPECT_EQ(profile.classes(0).representation(), "played/1");
  EXPECT_EQ(profile.contexts(0).name(), "default");
}

TEST_F(SoaAgent, DriversAreCalledAndAnswered) {
  ASSERT_TRUE(connected());
  send_get_ready();
  ASSERT_NE(ready(), nullptr);
  EXPECT_EQ(driver_.prepared, 1);
  const auto status = agent_->status();
  ASSERT_EQ(status.lines.size(), 1U);
  EXPECT_THAT(status.lines[0], HasSubstr("m1/0 vm1 as DESTINATION"));
  EXPECT_EQ(status.counters.at("open_transfers"), 1U);
}

TEST_F(SoaAgent, AFailingJournalIsACrash) {
  ASSERT_TRUE(connected());
  const auto before = agent_->status().counters.at("connections");
  journal_->fail_commits(1, {ErrorKind::Failed, "disk full"});
  send_get_ready();
  ASSERT_TRUE(until([this] { return agent_->status().counters["journal_failures"] == 1; }));
  EXPECT_EQ(driver_.prepared, 0) << "nothing was done that is not journaled";
  ASSERT_TRUE(connected()) << "it starts again by itself";
  EXPECT_EQ(agent_->status().counters.at("connections"), before + 1);
  EXPECT_THAT(agent_->status().lines, IsEmpty());
  send_get_ready();
  EXPECT_NE(ready(), nullptr);
}

TEST_F(SoaAgent, ItKeepsTryingWhileTheJournalFails) {
  ASSERT_TRUE(connected());
  send_get_ready();
  ASSERT_NE(ready(), nullptr);
  journal_->fail_commits(4, {ErrorKind::Failed, "disk full"});
  ASSERT_TRUE(until([this] {
    if (session_ != nullptr && agent_->status().connected && agent_->status().counters["journal_failures"] < 4) {
      if_m_a::MasterMessage message;
      message.mutable_rollback()->mutable_transfer()->CopyFrom(ready()->ready().transfer());
      message.mutable_rollback()->set_role(if_m_a::TRANSFER_ROLE_DESTINATION);
      session_->send(message);
    }
    return agent_->status().counters["journal_failures"] >= 4;
  }));
  ASSERT_TRUE(connected());
  EXPECT_EQ(agent_->status().counters.at("open_transfers"), 1U) << "what was journaled is still there";
}

TEST_F(SoaAgent, RepliesToAnEarlierMachineAreIgnored) {
  ASSERT_TRUE(connected());
  std::unique_lock held(driver_.gate);
  send_get_ready();
  ASSERT_TRUE(until([this] { return agent_->status().counters["driver_calls_pending"] == 1; }));
  journal_->fail_commits(1, {ErrorKind::Failed, "disk full"});
  send_get_ready("m2", "vm2");
  ASSERT_TRUE(until([this] { return agent_->status().counters["journal_failures"] == 1; }));
  ASSERT_TRUE(connected());
  held.unlock();
  EXPECT_TRUE(until([this] { return agent_->status().counters["driver_calls_pending"] == 0; }));
  EXPECT_TRUE(agent_->status().connected);
}

TEST_F(SoaAgent, OpenTransfersSurviveARestart) {
  ASSERT_TRUE(connected());
  send_get_ready();
  ASSERT_NE(ready(), nullptr);
  restart();
  ASSERT_TRUE(connected());
  const auto* registration = received([](const auto& m) { return m.has_register_(); });
  ASSERT_NE(registration, nullptr);
  ASSERT_EQ(registration->register_().open_transfers_size(), 1);
  EXPECT_EQ(registration->register_().open_transfers(0).transfer().migration_id(), "m1");
  EXPECT_EQ(agent_->find_subject("vm1").value().interfaces(0).vn_name(), "blue");
}

TEST_F(SoaAgent, ReconnectsAndRegistersAgain) {
  ASSERT_TRUE(connected());
  network_.cut("fw2");
  ASSERT_TRUE(until([this] { return !agent_->status().connected; }));
  messages_.clear();
  network_.join("fw2");
  ASSERT_TRUE(connected());
  EXPECT_NE(received([](const auto& m) { return m.has_register_(); }), nullptr);
}

TEST_F(SoaAgent, StateQueriesAreAnsweredInPieces) {
  ASSERT_TRUE(connected());
  driver_.records = 5000;
  const auto replies = query(1);
  ASSERT_GT(replies.size(), 2U);
  int records = 0;
  for (const auto& reply : replies) {
    EXPECT_LE(reply.ByteSizeLong(), 256U * 1024);
    EXPECT_EQ(reply.last(), &reply == &replies.back());
    EXPECT_EQ(reply.error(), "");
    records += reply.records_size();
  }
  EXPECT_EQ(records, 5000);
  EXPECT_EQ(replies.front().state_class(), "connection_tracking");
}

TEST_F(SoaAgent, StateQueriesThatCannotBeAnsweredSayWhy) {
  ASSERT_TRUE(connected());
  EXPECT_THAT(query(1, "multicast_membership").back().error(),
              HasSubstr("fw2 has no state class multicast_membership"));
  EXPECT_THAT(query(2, "", "red").back().error(), HasSubstr("no context red"));
  driver_.records = 100;
  driver_.record_bytes = 200'000;
  const auto replies = query(3);
  EXPECT_THAT(replies.back().error(), HasSubstr("larger than"));
  EXPECT_GT(replies.size(), 2U);
}

TEST_F(SoaAgent, TooManyQueriesAtOnceAreRefused) {
  ASSERT_TRUE(connected());
  std::unique_lock held(driver_.gate);
  if_m_a::MasterMessage message;
  *message.mutable_state_query()->mutable_subject() = vm();
  for (std::uint64_t id = 1; id <= config_.concurrent_queries; ++id) {
    message.mutable_state_query()->set_query_id(id);
    session_->send(message);
  }
  EXPECT_THAT(query(99).back().error(), HasSubstr("4 state queries are being answered"));
  held.unlock();
  EXPECT_TRUE(until([this] {
    return std::count_if(messages_.begin(), messages_.end(), [](const auto& m) {
             return m.has_state_reply() && m.state_reply().last() && m.state_reply().error().empty();
           }) == config_.concurrent_queries;
  }));
}

TEST_F(SoaAgent, SubjectsAreFoundByAddress) {
  const auto subject = agent_->find_subject("10.1.1.10");
  ASSERT_TRUE(subject) << subject.error().message;
  ASSERT_EQ(subject->interfaces_size(), 1);
  EXPECT_EQ(subject->interfaces(0).vn_name(), "blue");
  EXPECT_EQ(subject->interfaces(0).addresses(0), std::string("\x0a\x01\x01\x0a", 4));
  EXPECT_THAT(agent_->find_subject("vm7").error().message, HasSubstr("\"vm7\" is no subject"));
}

}  // namespace
}  // namespace sami::soa
