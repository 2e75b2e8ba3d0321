// The entity over a journal and a transport in memory, against a SOM that a test plays by hand.
#include "tde/entity.h"

#include <gmock/gmock.h>

#include <cerrno>

#include "interfaces/transport/memory_transport.h"
#include "tde/config.h"

namespace sami::tde {
namespace {

namespace if_m_t = ::sami::if_m_t::v1;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kConfig = R"(name: tde1
domain: dc.example
master: som
master_name: som1
pki: {ca: /p/ca.pem, certificate: /p/tde1.pem, key: /p/tde1.key}
state: /var/lib/sami/tde
topology:
  servers: [server1, server2, server3]
  state_hosts:
    - {name: fw1, roles: [firewall]}
    - {name: fw2, roles: [firewall]}
    - {name: fw3, roles: [firewall]}
  vms:
    - {id: vm1, server: server1, interfaces: [{vn: blue, addresses: [10.1.1.10]}]}
    - {id: vm2, server: server1, interfaces: [{vn: blue, addresses: [10.1.1.11]}]}
  paths:
    - {server: server1, to: [0.0.0.0/0], through: [fw1]}
    - {server: server2, to: [0.0.0.0/0], through: [fw2]}
    - {server: server3, to: [0.0.0.0/0], through: [fw3]}
)";

class TdeEntity : public testing::Test {
 protected:
  TdeEntity() {
    std::string text = kConfig;
    auto settings =
        read_settings(Config::parse(text.replace(text.find("master: som"), 11, "master: som:1"), "tde.yaml"));
    if (!settings) throw std::runtime_error(settings.error().message);
    settings_.emplace(std::move(*settings));
    settings_->entity.rebuild_delay = std::chrono::milliseconds(5);
    settings_->entity.maximum_rebuild_delay = std::chrono::milliseconds(20);
    settings_->entity.find_out_deadline = std::chrono::milliseconds(50);
    settings_->entity.gate.repeat_interval = std::chrono::milliseconds(20);
    serve();
    start();
  }
  ~TdeEntity() override { stop(); }

  void serve() {
    transport::MasterHandlers handlers;
    handlers.on_agent_open = [](const auto&) {};
    handlers.on_agent_message = [](const auto&, auto) {};
    handlers.on_agent_closed = [](const auto&, const auto&) {};
    handlers.on_tde_open = [this](std::shared_ptr<transport::TdeSession> session) { session_ = std::move(session); };
    handlers.on_tde_message = [this](const auto&, if_m_t::TdeMessage message) { heard(std::move(message)); };
    handlers.on_tde_closed = [this](const auto& session, const auto&) {
      if (session == session_) session_.reset();
    };
    handlers.on_refused = [](const auto&, const auto&) {};
    auto server = network_.serve("som:1", {"dc.example", "som", "som1"}, std::move(handlers), {});
    if (!server) throw std::runtime_error(server.error().message);
    server_ = std::move(*server);
  }

  void start() {
    client_ = network_.make_tde_client("som:1", {"dc.example", "tde", "tde1"}, "som1", {});
    entity_ = std::make_unique<Entity>(settings_->entity, settings_->topology,
                                       EntityPorts{loop_, system_clock(), *journal_, *audit_, *client_,
                                                   Log(LogLevel::Error, [](LogLevel, const std::string&) {})});
    entity_->start();
  }
  void stop() {
    entity_.reset();
    client_.reset();
  }
  // As after kill -9: nothing but the journal is left.
  void restart() {
    stop();
    journal_ = std::make_unique<MemoryJournal>(journal_->image());
    start();
  }

  void heard(if_m_t::TdeMessage message) {
    if (message.has_authorize()) {
      if_m_t::MasterMessage reply;
      reply.mutable_authorized()->set_protocol_version(1);
      session_->send(reply);
    }
    if (message.has_notify()) {
      notifications_[message.notify().notification_id()][message.notify().phase()] = message.notify();
      if (acknowledge_) {
        if_m_t::MasterMessage reply;
        auto* acknowledged = reply.mutable_notify_acknowledged();
        acknowledged->set_notification_id(message.notify().notification_id());
        acknowledged->set_sequence(message.notify().sequence());
        acknowledged->set_accepted(!refuse_);
        if (!refuse_) acknowledged->set_migration_id("m1");
        if (refuse_) acknowledged->set_reason("busy");
        session_->send(reply);
      }
    }
    messages_.push_back(std::move(message));
  }
  bool until(const std::function<bool()>& condition) { return loop_.run_until(condition, std::chrono::seconds(10)); }
  bool connected() {
    return until([this] { return entity_->status().connected; });
  }
  template <typename Predicate>
  const if_m_t::TdeMessage* received(Predicate predicate) {
    const auto found = [&] { return std::find_if(messages_.begin(), messages_.end(), predicate); };
    return until([&] { return found() != messages_.end(); }) ? &*found() : nullptr;
  }
  bool notified(const std::string& id, if_m_t::Phase phase) {
    return until([&, this] { return notifications_[id].contains(phase); });
  }

  Result<std::string> announce(const std::string& subject, const std::string& destination,
                               if_m_t::Phase phase = if_m_t::PHASE_ANNOUNCED) {
    return entity_->notify({.phase = phase,
                            .subject_id = subject,
                            .destination_place = destination,
                            .notification_id = {},
                            .cause = {},
                            .force = false,
                            .actor = "local"});
  }
  Result<std::string> report(const std::string& id, if_m_t::Phase phase) {
    return entity_->notify({.phase = phase,
                            .subject_id = {},
                            .destination_place = {},
                            .notification_id = id,
                            .cause = {},
                            .force = false,
                            .actor = "local"});
  }
  void send_standing(const std::string& id) {
    if_m_t::MasterMessage message;
    message.mutable_standing()->set_notification_id(id);
    message.mutable_standing()->set_migration_id("m1");
    message.mutable_standing()->set_standby(true);
    session_->send(message);
  }
  void send_verdict(const std::string& id, common::Vote vote) {
    if_m_t::MasterMessage message;
    message.mutable_verdict()->set_notification_id(id);
    message.mutable_verdict()->set_migration_id("m1");
    message.mutable_verdict()->set_vote(vote);
    session_->send(message);
  }
  void send_concluded(const std::string& id, const std::string& state) {
    if_m_t::MasterMessage message;
    message.mutable_concluded()->set_notification_id(id);
    message.mutable_concluded()->set_migration_id("m1");
    message.mutable_concluded()->set_final_state(state);
    session_->send(message);
  }
  // What a hypervisor that watches is told.
  std::shared_ptr<void> watch(const std::string& id) {
    return entity_->watch(id, [this](const MoveStatus& status) { told_.push_back(status); }).value();
  }
  bool told(const std::string& instruction) {
    return until([&, this] { return !told_.empty() && told_.back().instruction == instruction; });
  }

  Loop loop_;
  transport::MemoryNetwork network_{loop_};
  std::unique_ptr<transport::MemoryNetwork::Server> server_;
  std::optional<Settings> settings_;
  std::unique_ptr<MemoryJournal> journal_ = std::make_unique<MemoryJournal>();
  std::unique_ptr<Audit> audit_ = make_memory_audit();
  std::unique_ptr<transport::TdeClient> client_;
  std::unique_ptr<Entity> entity_;
  std::shared_ptr<transport::TdeSession> session_;
  std::vector<if_m_t::TdeMessage> messages_;
  std::map<std::string, std::map<if_m_t::Phase, if_m_t::Notify>> notifications_;
  std::vector<MoveStatus> told_;
  bool acknowledge_ = true;
  bool refuse_ = false;
};

TEST_F(TdeEntity, SaysWhoItIsAndWhatItKnows) {
  ASSERT_TRUE(connected());
  const auto* authorize = received([](const auto& m) { return m.has_authorize(); });
  ASSERT_NE(authorize, nullptr);
  EXPECT_EQ(authorize->authorize().identity(), "spiffe://dc.example/sami/tde/tde1");
  EXPECT_THAT(authorize->authorize().subjects(), ElementsAre("vm1", "vm2"));
  const auto* inventory = received([](const auto& m) { return m.has_inventory(); });
  ASSERT_NE(inventory, nullptr);
  ASSERT_EQ(inventory->inventory().places_size(), 2);
  EXPECT_EQ(inventory->inventory().places(0).subject().id(), "vm1");
  EXPECT_EQ(inventory->inventory().places(0).server(), "server1");
}

TEST_F(TdeEntity, AMoveFromAnnouncementToEnd) {
  ASSERT_TRUE(connected());
  const std::string id = announce("vm1", "server2").value();
  ASSERT_TRUE(notified(id, if_m_t::PHASE_ANNOUNCED));
  const auto& announcement = notifications_[id][if_m_t::PHASE_ANNOUNCED];
  EXPECT_EQ(announcement.source_place(), "server1");
  EXPECT_EQ(announcement.destination_place(), "server2");
  EXPECT_EQ(announcement.actor(), "local");
  ASSERT_EQ(announcement.transfers_size(), 1);
  EXPECT_EQ(announcement.transfers(0).source_host(), "fw1");
  EXPECT_EQ(announcement.transfers(0).destination_host(), "fw2");

  const auto watching = watch(id);
  send_standing(id);
  ASSERT_TRUE(told("MayPause"));
  ASSERT_TRUE(report(id, if_m_t::PHASE_PAUSED));
  ASSERT_TRUE(notified(id, if_m_t::PHASE_PAUSED));
  send_verdict(id, common::VOTE_GO);
  ASSERT_TRUE(told("Continue"));
  EXPECT_EQ(told_.back().migration_id, "m1");
  messages_.clear();
  ASSERT_TRUE(report(id, if_m_t::PHASE_RESUMED));
  EXPECT_EQ(entity_->places().at("vm1"), "server2");
  ASSERT_TRUE(notified(id, if_m_t::PHASE_RESUMED));
  const auto* inventory = received([](const auto& m) { return m.has_inventory(); });
  ASSERT_NE(inventory, nullptr);
  EXPECT_EQ(inventory->inventory().places(0).server(), "server2");
  send_concluded(id, "DONE");
  ASSERT_TRUE(told("Concluded"));
  EXPECT_TRUE(told_.back().ended);
  EXPECT_THAT(told_.back().detail, HasSubstr("DONE"));
  EXPECT_THAT(entity_->moves(), IsEmpty());
  EXPECT_TRUE(report(id, if_m_t::PHASE_RESUMED)) << "saying it again is harmless";

  restart();
  EXPECT_EQ(entity_->places().at("vm1"), "server2");
  EXPECT_NE(announce("vm1", "server1").value(), id);
}

TEST_F(TdeEntity, SayingItAgainIsTheSameMove) {
  const std::string id = announce("vm1", "server2").value();
  EXPECT_EQ(announce("vm1", "server2").value(), id);
  EXPECT_NE(announce("vm2", "server2").value(), id);
  EXPECT_THAT(entity_->moves(), SizeIs(2));
}

TEST_F(TdeEntity, RefusesWhatContradicts) {
  EXPECT_EQ(announce("vm9", "server2").error().system_error, ENOENT);
  EXPECT_EQ(announce("vm1", "server9").error().system_error, ENOENT);
  EXPECT_THAT(announce("vm1", "server1").error().message, HasSubstr("vm1 is on server1 already"));
  EXPECT_EQ(report("", if_m_t::PHASE_PAUSED).error().system_error, ENOENT);
  EXPECT_EQ(report("tde1-77", if_m_t::PHASE_PAUSED).error().system_error, ENOENT);
  EXPECT_EQ(report("", if_m_t::PHASE_UNSPECIFIED).error().kind, ErrorKind::InvalidInput);
  EXPECT_THAT(entity_->moves(), IsEmpty());
  ASSERT_TRUE(announce("vm1", "server2"));
  EXPECT_THAT(announce("vm1", "server3").error().message, HasSubstr("is moving from server1 to server2 already"));
  EXPECT_FALSE(entity_->watch("tde1-77", [](const MoveStatus&) {}));
}

TEST_F(TdeEntity, AnOpenMoveSurvivesARestart) {
  ASSERT_TRUE(connected());
  const std::string id = announce("vm1", "server2").value();
  ASSERT_TRUE(report(id, if_m_t::PHASE_PAUSED));
  restart();
  ASSERT_THAT(entity_->moves(), SizeIs(1));
  EXPECT_EQ(entity_->moves()[0].notification_id, id);
  const auto watching = watch(id);
  EXPECT_EQ(told_.back().instruction, "FindOut");
  ASSERT_TRUE(report(id, if_m_t::PHASE_CANCELLED));
  ASSERT_TRUE(notified(id, if_m_t::PHASE_CANCELLED));
  EXPECT_EQ(entity_->places().at("vm1"), "server1");
}

TEST_F(TdeEntity, NobodyKnowsWhereTheVmRuns) {
  ASSERT_TRUE(connected());
  const std::string id = announce("vm1", "server2").value();
  ASSERT_TRUE(report(id, if_m_t::PHASE_PAUSED));
  restart();
  ASSERT_TRUE(connected());
  if_m_t::MasterMessage question;
  question.mutable_outcome_request()->set_notification_id(id);
  question.mutable_outcome_request()->set_migration_id("m1");
  session_->send(question);
  const auto* unknown = received([](const auto& m) { return m.has_outcome_unknown(); });
  ASSERT_NE(unknown, nullptr);
  EXPECT_EQ(unknown->outcome_unknown().notification_id(), id);
}

TEST_F(TdeEntity, ARefusedMoveThatHappensAnywayIsAnUnplannedOne) {
  refuse_ = true;
  ASSERT_TRUE(connected());
  const std::string id = announce("vm1", "server2").value();
  const auto watching = watch(id);
  ASSERT_TRUE(told("Refused"));
  EXPECT_THAT(told_.back().detail, HasSubstr("busy"));
  EXPECT_THAT(entity_->moves(), IsEmpty());
  refuse_ = false;
  const auto later = report(id, if_m_t::PHASE_RESUMED);
  ASSERT_TRUE(later) << later.error().message;
  EXPECT_TRUE(notified(*later, if_m_t::PHASE_MOVED));
  EXPECT_EQ(entity_->places().at("vm1"), "server2");
}

TEST_F(TdeEntity, AVmThatWentElsewhereLeavesItsAnnouncedMove) {
  ASSERT_TRUE(connected());
  const std::string id = announce("vm1", "server2").value();
  const auto moved = announce("vm1", "server3", if_m_t::PHASE_MOVED);
  ASSERT_TRUE(moved) << moved.error().message;
  EXPECT_TRUE(notified(id, if_m_t::PHASE_CANCELLED));
  send_concluded(id, "ROLLED_BACK");
  ASSERT_TRUE(notified(*moved, if_m_t::PHASE_MOVED));
  EXPECT_EQ(notifications_[*moved][if_m_t::PHASE_MOVED].source_place(), "server1");
  EXPECT_EQ(entity_->places().at("vm1"), "server3");
}

TEST_F(TdeEntity, ForceIsNotDroppedWhenTheMoveIsOpenAlready) {
  ASSERT_TRUE(connected());
  const Notification plain{if_m_t::PHASE_ANNOUNCED, "vm1", "server2", {}, common::CAUSE_UNSPECIFIED, false, {}};
  Notification forced = plain;
  forced.force = true;
  const std::string id = entity_->notify(plain).value();
  EXPECT_EQ(entity_->notify(plain).value(), id);
  const auto refused = entity_->notify(forced);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("force that migration instead"));
}

TEST_F(TdeEntity, AnswersTheMaster) {
  ASSERT_TRUE(connected());
  const auto ask = [this](std::uint64_t id, const std::string& subject, const std::string& destination) {
    if_m_t::MasterMessage question;
    question.mutable_path_query()->set_query_id(id);
    question.mutable_path_query()->set_subject_id(subject);
    question.mutable_path_query()->set_destination_place(destination);
    session_->send(question);
    const auto* reply = received([id](const auto& m) { return m.has_path_reply() && m.path_reply().query_id() == id; });
    return reply == nullptr ? if_m_t::PathReply() : reply->path_reply();
  };
  const auto planned = ask(1, "vm1", "server2");
  EXPECT_EQ(planned.source_place(), "server1");
  EXPECT_EQ(planned.transfers_size(), 1);
  EXPECT_EQ(planned.subject().id(), "vm1");
  const auto whole = ask(2, "", "");
  EXPECT_FALSE(whole.has_subject());
  EXPECT_THAT(whole.topology(), testing::Contains("server server1: vm1, vm2"));
  EXPECT_THAT(ask(3, "vm9", "").error(), HasSubstr("no VM vm9"));

  if_m_t::MasterMessage request;
  request.mutable_move_request()->set_query_id(4);
  request.mutable_move_request()->set_subject_id("vm1");
  request.mutable_move_request()->set_destination_place("server2");
  request.mutable_move_request()->set_force(true);
  request.mutable_move_request()->set_actor("operator/alice");
  session_->send(request);
  const auto* answer = received([](const auto& m) { return m.has_move_answer(); });
  ASSERT_NE(answer, nullptr);
  const std::string id = answer->move_answer().notification_id();
  ASSERT_TRUE(notified(id, if_m_t::PHASE_ANNOUNCED));
  EXPECT_TRUE(notifications_[id][if_m_t::PHASE_ANNOUNCED].force());
  EXPECT_EQ(notifications_[id][if_m_t::PHASE_ANNOUNCED].actor(), "operator/alice");
}

TEST_F(TdeEntity, AFailingJournalIsACrash) {
  ASSERT_TRUE(connected());
  journal_->fail_commits(1, {ErrorKind::Failed, "disk full"});
  const auto refused = announce("vm1", "server2");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::Retry);
  EXPECT_THAT(refused.error().message, HasSubstr("disk full"));
  EXPECT_THAT(entity_->moves(), IsEmpty());
  EXPECT_FALSE(entity_->status().connected);
  ASSERT_TRUE(connected()) << "it starts again by itself";
  const auto id = announce("vm1", "server2");
  ASSERT_TRUE(id);
  EXPECT_TRUE(notified(*id, if_m_t::PHASE_ANNOUNCED));
  EXPECT_EQ(entity_->status().counters.at("journal_failures"), 1U);
}

TEST_F(TdeEntity, APausedVmIsNotForgottenWhileTheJournalFails) {
  settings_->entity.gate.verdict_deadline = std::chrono::milliseconds(100);
  restart();
  ASSERT_TRUE(connected());
  const std::string id = announce("vm1", "server2").value();
  ASSERT_TRUE(notified(id, if_m_t::PHASE_ANNOUNCED));
  const auto watching = watch(id);
  ASSERT_TRUE(report(id, if_m_t::PHASE_PAUSED));
  journal_->fail_commits(1'000'000, {ErrorKind::Failed, "disk full"});
  EXPECT_TRUE(told("Cancel")) << "the policy of the gate";
  EXPECT_TRUE(journal_->image().contains("gate/" + id)) << "nothing was written";
}

TEST_F(TdeEntity, ReconnectsAndSaysItAgain) {
  acknowledge_ = false;
  ASSERT_TRUE(connected());
  const std::string id = announce("vm1", "server2").value();
  ASSERT_TRUE(notified(id, if_m_t::PHASE_ANNOUNCED));
  network_.cut("tde1");
  ASSERT_TRUE(until([this] { return !entity_->status().connected; }));
  notifications_.clear();
  acknowledge_ = true;
  network_.join("tde1");
  EXPECT_TRUE(notified(id, if_m_t::PHASE_ANNOUNCED));
  EXPECT_TRUE(until([this] { return entity_->moves().at(0).migration_id == "m1"; }));
}

}  // namespace
}  // namespace sami::tde
