// The gate over the scripted QEMUs and the real entity, against a SOM that the test plays.
#include "tde/qemu/gate.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "interfaces/transport/memory_transport.h"
#include "tde/config.h"
#include "tde/qemu/qmp.h"
#include "tde/qemu/tests/fake_qemu.h"

namespace sami::tde::qemu {
namespace {

namespace if_m_t = ::sami::if_m_t::v1;
using qmp::FakeQemu;

constexpr const char* kConfig = R"(name: tde1
domain: dc.example
master: som:1
master_name: som1
pki: {ca: /p/ca.pem, certificate: /p/tde1.pem, key: /p/tde1.key}
state: /var/lib/sami/tde
gate: {standby_ms: 5000, verdict_ms: 200, no_verdict: POLICY}
topology:
  servers: [server1, server2]
  state_hosts: [{name: fw1, roles: [firewall]}, {name: fw2, roles: [firewall]}]
  vms: [{id: vm1, server: server1, interfaces: [{vn: blue, addresses: [10.1.1.10]}]}]
  paths:
    - {server: server1, to: [0.0.0.0/0], through: [fw1]}
    - {server: server2, to: [0.0.0.0/0], through: [PATH]}
hypervisors:
  virtual_machines:
    - {id: vm1, qmp: {server1: FOLDER/1, server2: FOLDER/2}}
)";

void replace(std::string& text, const std::string& what, const std::string& with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what)) text.replace(at, what.size(), with);
}

class QemuGate : public ::testing::Test {
 protected:
  QemuGate() : folder_(std::filesystem::temp_directory_path() / ("sami-gate-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~QemuGate() override {
    stop();
    source_.reset();
    destination_.reset();
    std::filesystem::remove_all(folder_);
  }

  void start(const std::string& policy = "cancel", const std::string& path = "fw2") {
    std::string text = kConfig;
    replace(text, "POLICY", policy);
    replace(text, "PATH", path);
    replace(text, "FOLDER", folder_);
    auto settings = read_settings(sami::Config::parse(text, "tde.yaml"));
    if (!settings) throw std::runtime_error(settings.error().message);
    settings_.emplace(std::move(*settings));
    settings_->entity.gate.repeat_interval = std::chrono::milliseconds(20);
    serve();
    source_ = std::make_unique<FakeQemu>(folder_ / "1", false, qemus_, loop_);
    destination_ = std::make_unique<FakeQemu>(folder_ / "2", true, qemus_, loop_);
    run();
  }
  void run() {
    client_ = network_.make_tde_client("som:1", {"dc.example", "tde", "tde1"}, "som1", {});
    const Log log(LogLevel::Error, [](LogLevel, const std::string&) {});
    entity_ = std::make_unique<Entity>(settings_->entity, settings_->topology,
                                       EntityPorts{loop_, system_clock(), *journal_, *audit_, *client_, log});
    entity_->start();
    gate_ = std::make_unique<Gate>(settings_->hypervisors, settings_->entity.gate, *entity_, loop_, log);
    gate_->start();
    ASSERT_TRUE(until([&] { return entity_->status().connected && prepared(*source_) && prepared(*destination_); }));
  }
  void stop() {
    gate_.reset();
    entity_.reset();
    client_.reset();
  }
  void serve() {
    transport::MasterHandlers handlers;
    handlers.on_agent_open = [](const auto&) {};
    handlers.on_agent_message = [](const auto&, auto) {};
    handlers.on_agent_closed = [](const auto&, const auto&) {};
    handlers.on_tde_open = [this](std::shared_ptr<transport::TdeSession> session) { session_ = std::move(session); };
    handlers.on_tde_message = [this](const auto&, const if_m_t::TdeMessage& message) { heard(message); };
    handlers.on_tde_closed = [](const auto&, const auto&) {};
    handlers.on_refused = [](const auto&, const auto&) {};
    server_ = network_.serve("som:1", {"dc.example", "som", "som1"}, std::move(handlers), {}).value();
  }
  // The played SOM: authorizes, acknowledges, and says on each phase what the test wants.
  void heard(const if_m_t::TdeMessage& message) {
    if_m_t::MasterMessage reply;
    if (message.has_authorize()) {
      reply.mutable_authorized()->set_protocol_version(1);
      session_->send(reply);
    }
    if (!message.has_notify()) return;
    const auto& notify = message.notify();
    auto* acknowledged = reply.mutable_notify_acknowledged();
    acknowledged->set_notification_id(notify.notification_id());
    acknowledged->set_sequence(notify.sequence());
    acknowledged->set_accepted(!refuse_);
    acknowledged->set_migration_id(refuse_ ? "" : "m1");
    session_->send(reply);
    if (std::find(phases_.begin(), phases_.end(), notify.phase()) != phases_.end()) return;
    phases_.push_back(notify.phase());
    if (notify.phase() == if_m_t::PHASE_ANNOUNCED && stand_by_) stand_by(notify.notification_id());
    if (notify.phase() == if_m_t::PHASE_PAUSED && vote_ != common::VOTE_UNSPECIFIED) vote(notify.notification_id());
    id_ = notify.notification_id();
  }
  void stand_by(const std::string& id) {
    if_m_t::MasterMessage message;
    message.mutable_standing()->set_notification_id(id);
    message.mutable_standing()->set_standby(true);
    session_->send(message);
  }
  void vote(const std::string& id) {
    if_m_t::MasterMessage message;
    message.mutable_verdict()->set_notification_id(id);
    message.mutable_verdict()->set_vote(vote_);
    session_->send(message);
  }

  static bool prepared(const FakeQemu& qemu) {
    return qemu.capability("events") && qemu.capability("pause-before-switchover");
  }
  bool until(const std::function<bool()>& condition) { return loop_.run_until(condition, std::chrono::seconds(10)); }
  bool notified(if_m_t::Phase phase) {
    return until([&] { return std::find(phases_.begin(), phases_.end(), phase) != phases_.end(); });
  }
  // What the operator's tool does: its own monitor is the fake's own business.
  void migrate() {
    destination_->execute(qmp::migrate_incoming("unix:" + folder_.string() + "/m"));
    source_->execute(qmp::migrate("unix:" + folder_.string() + "/m"));
  }

  std::filesystem::path folder_;
  Loop loop_;
  transport::MemoryNetwork network_{loop_};
  std::unique_ptr<transport::MemoryNetwork::Server> server_;
  std::shared_ptr<transport::TdeSession> session_;
  std::optional<Settings> settings_;
  std::unique_ptr<MemoryJournal> journal_ = std::make_unique<MemoryJournal>();
  std::unique_ptr<Audit> audit_ = make_memory_audit();
  std::unique_ptr<transport::TdeClient> client_;
  std::unique_ptr<Entity> entity_;
  qmp::FakeNetwork qemus_;
  std::unique_ptr<FakeQemu> source_;
  std::unique_ptr<FakeQemu> destination_;
  std::unique_ptr<Gate> gate_;
  std::vector<if_m_t::Phase> phases_;
  std::string id_;
  bool stand_by_ = true;
  bool refuse_ = false;
  common::Vote vote_ = common::VOTE_GO;
};

using if_m_t::PHASE_ANNOUNCED;
using if_m_t::PHASE_CANCELLED;
using if_m_t::PHASE_MOVED;
using if_m_t::PHASE_PAUSED;
using if_m_t::PHASE_RESUMED;
using ::testing::ElementsAre;

TEST_F(QemuGate, HoldsTheMigrationUntilTheVerdict) {
  start();
  stand_by_ = false;
  migrate();
  ASSERT_TRUE(notified(PHASE_ANNOUNCED));
  EXPECT_FALSE(loop_.run_until([&] { return !source_->running(); }, std::chrono::milliseconds(100)));
  EXPECT_EQ(source_->bandwidth(), 1024 * 1024);
  stand_by(id_);
  ASSERT_TRUE(notified(PHASE_RESUMED));
  EXPECT_THAT(phases_, ElementsAre(PHASE_ANNOUNCED, PHASE_PAUSED, PHASE_RESUMED));
  EXPECT_TRUE(destination_->running());
  EXPECT_EQ(source_->bandwidth(), 128 * 1024 * 1024);
  EXPECT_EQ(entity_->places().at("vm1"), "server2");
}

TEST_F(QemuGate, NoGoBringsItBack) {
  start();
  vote_ = common::VOTE_NO_GO;
  migrate();
  ASSERT_TRUE(notified(PHASE_CANCELLED));
  EXPECT_TRUE(source_->running());
  EXPECT_FALSE(destination_->running());
  EXPECT_EQ(entity_->places().at("vm1"), "server1");
}

TEST_F(QemuGate, WithoutAVerdictItGoesBackWhenThePolicyIsToCancel) {
  start("cancel");
  vote_ = common::VOTE_UNSPECIFIED;
  migrate();
  ASSERT_TRUE(notified(PHASE_PAUSED));
  ASSERT_TRUE(notified(PHASE_CANCELLED));
  EXPECT_TRUE(source_->running());
}

TEST_F(QemuGate, WithoutAVerdictItGoesOnWhenThePolicyIsToContinue) {
  start("continue");
  vote_ = common::VOTE_UNSPECIFIED;
  migrate();
  ASSERT_TRUE(notified(PHASE_PAUSED));
  ASSERT_TRUE(notified(PHASE_RESUMED));
  EXPECT_TRUE(destination_->running());
}

TEST_F(QemuGate, DestinationKilledWhilePausedBringsItBackAtOnce) {
  start();
  vote_ = common::VOTE_UNSPECIFIED;
  migrate();
  ASSERT_TRUE(notified(PHASE_PAUSED));
  destination_.reset();
  ASSERT_TRUE(notified(PHASE_CANCELLED));
  EXPECT_TRUE(source_->running());
}

TEST_F(QemuGate, RestartedDaemonTakesThePausedVmOver) {
  start();
  vote_ = common::VOTE_UNSPECIFIED;
  migrate();
  ASSERT_TRUE(notified(PHASE_PAUSED));
  stop();
  ASSERT_TRUE(until([&] { return source_->run_state() == "finish-migrate"; }));
  vote_ = common::VOTE_GO;
  journal_ = std::make_unique<MemoryJournal>(journal_->image());
  run();
  vote(id_);
  ASSERT_TRUE(notified(PHASE_RESUMED));
  EXPECT_TRUE(destination_->running());
}

TEST_F(QemuGate, RefusedAnnouncementFollowsThePolicy) {
  refuse_ = true;
  start("continue");
  migrate();
  ASSERT_TRUE(until([&] { return destination_->running(); }));
  ASSERT_TRUE(notified(PHASE_MOVED));
}

TEST_F(QemuGate, WhatNeedsNoStateGoesUnhindered) {
  start("cancel", "");
  migrate();
  ASSERT_TRUE(until([&] { return destination_->running(); }));
}

TEST_F(QemuGate, FoundElsewhereAfterwardsItHasMoved) {
  start();
  stop();
  migrate();
  ASSERT_TRUE(until([&] { return source_->run_state() == "finish-migrate"; }));
  source_->execute(qmp::migrate_continue());
  ASSERT_TRUE(until([&] { return destination_->running(); }));
  source_.reset();
  journal_ = std::make_unique<MemoryJournal>(journal_->image());
  source_ = std::make_unique<FakeQemu>(folder_ / "1", true, qemus_, loop_);  // ready to take it back
  run();
  ASSERT_TRUE(notified(PHASE_MOVED));
  EXPECT_EQ(entity_->places().at("vm1"), "server2");
}

}  // namespace
}  // namespace sami::tde::qemu
