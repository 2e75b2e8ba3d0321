// The gate with a simulated hypervisor beside it, and a SOM that a test plays by hand. Time is the test's.
#include "tde/hypervisor.h"

#include <gmock/gmock.h>

#include <deque>

namespace sami::tde {
namespace {

namespace event = protocol::gate_event;
namespace if_m_t = ::sami::if_m_t::v1;
using testing::Contains;
using testing::ElementsAre;
using testing::Not;
using OnMayPause = HypervisorScript::OnMayPause;
using OnVerdict = HypervisorScript::OnVerdict;

constexpr const char* kMove = "tde1-1";

class GateWithHypervisor {
 public:
  explicit GateWithHypervisor(HypervisorScript script,
                              protocol::NoVerdictPolicy policy = protocol::NoVerdictPolicy::Cancel)
      : hypervisor_(script) {
    config_.identity = "spiffe://dc.example/sami/tde/tde1";
    config_.subjects = {"vm1"};
    config_.no_verdict = policy;
    gate_.emplace(config_, journal_);
    feed(event::Connected{});
    if_m_t::MasterMessage authorized;
    authorized.mutable_authorized()->set_protocol_version(1);
    feed(event::FromMaster{authorized});
  }

  void begin() {
    const auto begun = hypervisor_.begin({kMove, "vm1", "server1", "server2"},
                                         [this](protocol::GateEvent what) { feed(std::move(what)); });
    ASSERT_TRUE(begun);
    if_m_t::Notify announcement;
    announcement.set_notification_id(kMove);
    announcement.set_phase(if_m_t::PHASE_ANNOUNCED);
    announcement.set_cause(common::v1::CAUSE_VM_MIGRATION);
    announcement.mutable_subject()->set_id("vm1");
    announcement.set_source_place("server1");
    announcement.set_destination_place("server2");
    auto* transfer = announcement.add_transfers();
    transfer->set_source_host("fw1");
    transfer->set_destination_host("fw2");
    feed(event::MoveBegan{announcement});
  }
  void standby() {
    if_m_t::MasterMessage message;
    message.mutable_standing()->set_notification_id(kMove);
    message.mutable_standing()->set_migration_id("m1");
    message.mutable_standing()->set_standby(true);
    feed(event::FromMaster{message});
  }
  void verdict(common::v1::Vote vote) {
    if_m_t::MasterMessage message;
    message.mutable_verdict()->set_notification_id(kMove);
    message.mutable_verdict()->set_migration_id("m1");
    message.mutable_verdict()->set_vote(vote);
    feed(event::FromMaster{message});
  }
  void conclude() {
    if_m_t::MasterMessage message;
    message.mutable_concluded()->set_notification_id(kMove);
    message.mutable_concluded()->set_migration_id("m1");
    message.mutable_concluded()->set_final_state("DONE");
    feed(event::FromMaster{message});
  }
  void wait(Duration duration) {
    now_ = now_ + duration;
    feed(event::Tick{});
  }
  // kill -9 of the TDE.
  void restart() {
    gate_.emplace(config_, journal_);
    feed(event::Connected{});
    if_m_t::MasterMessage authorized;
    authorized.mutable_authorized()->set_protocol_version(1);
    feed(event::FromMaster{authorized});
  }

  std::vector<if_m_t::Phase> notified;  // each once, in the order of the first time
  SimulatedHypervisor& hypervisor() { return hypervisor_; }
  bool open() const { return !gate_->moves().empty(); }

 private:
  // Events that instructions lead to are fed after the step that gave the instructions.
  void feed(protocol::GateEvent first) {
    queue_.push_back(std::move(first));
    if (feeding_) return;
    feeding_ = true;
    while (!queue_.empty()) {
      protocol::GateEvent next = std::move(queue_.front());
      queue_.pop_front();
      const auto step = gate_->step(now_, std::move(next));
      for (const auto& write : step.journal) {
        if (write.value) journal_[write.key] = *write.value;
        else journal_.erase(write.key);
      }
      for (const auto& message : step.messages) hear(message);
      for (const auto& instruction : step.instructions) {
        carry_out(instruction, hypervisor_, [this](protocol::GateEvent what) { feed(std::move(what)); });
      }
    }
    feeding_ = false;
  }
  void hear(const if_m_t::TdeMessage& message) {
    if (!message.has_notify()) return;
    const auto& notify = message.notify();
    if (std::find(notified.begin(), notified.end(), notify.phase()) == notified.end())
      notified.push_back(notify.phase());
    if_m_t::MasterMessage reply;
    auto* acknowledged = reply.mutable_notify_acknowledged();
    acknowledged->set_notification_id(notify.notification_id());
    acknowledged->set_sequence(notify.sequence());
    acknowledged->set_migration_id("m1");
    acknowledged->set_accepted(true);
    queue_.push_back(event::FromMaster{reply});
  }

  protocol::GateConfig config_;
  protocol::JournalImage journal_;
  std::optional<protocol::Gate> gate_;
  SimulatedHypervisor hypervisor_;
  std::deque<protocol::GateEvent> queue_;
  bool feeding_ = false;
  Instant now_{1};
};

TEST(HypervisorAtTheGate, Obeys) {
  GateWithHypervisor world({});
  world.begin();
  world.standby();
  world.verdict(common::v1::VOTE_GO);
  EXPECT_THAT(world.notified, ElementsAre(if_m_t::PHASE_ANNOUNCED, if_m_t::PHASE_PAUSED, if_m_t::PHASE_RESUMED));
  world.conclude();
  EXPECT_FALSE(world.open());
  EXPECT_FALSE(world.hypervisor().knows(kMove)) << "it was told to forget";
}

TEST(HypervisorAtTheGate, GoesBackOnANoGo) {
  GateWithHypervisor world({});
  world.begin();
  world.standby();
  world.verdict(common::v1::VOTE_NO_GO);
  EXPECT_THAT(world.notified, ElementsAre(if_m_t::PHASE_ANNOUNCED, if_m_t::PHASE_PAUSED, if_m_t::PHASE_CANCELLED));
}

TEST(HypervisorAtTheGate, TheVmsPlaceIsNotifiedAgainstTheVerdict) {
  HypervisorScript defiant;
  defiant.on_cancel = OnVerdict::SwitchOver;
  defiant.on_continue = OnVerdict::GoBack;
  GateWithHypervisor forward(defiant);
  forward.begin();
  forward.standby();
  forward.verdict(common::v1::VOTE_NO_GO);
  EXPECT_THAT(forward.notified, Contains(if_m_t::PHASE_RESUMED));
  GateWithHypervisor back(defiant);
  back.begin();
  back.standby();
  back.verdict(common::v1::VOTE_GO);
  EXPECT_THAT(back.notified, Contains(if_m_t::PHASE_CANCELLED));
}

TEST(HypervisorAtTheGate, CancelsByItself) {
  GateWithHypervisor early({});
  early.begin();
  early.hypervisor().cancel_by_itself(kMove);
  EXPECT_THAT(early.notified, ElementsAre(if_m_t::PHASE_ANNOUNCED, if_m_t::PHASE_CANCELLED));
  GateWithHypervisor asked(
      {.on_may_pause = OnMayPause::Cancel, .on_continue = {}, .on_cancel = {}, .found_after_death = {}});
  asked.begin();
  asked.standby();
  EXPECT_THAT(asked.notified, ElementsAre(if_m_t::PHASE_ANNOUNCED, if_m_t::PHASE_CANCELLED));
}

TEST(HypervisorAtTheGate, SwitchesOverWithoutAPauseThatAnybodySaw) {
  HypervisorScript script;
  script.on_may_pause = OnMayPause::SwitchOver;
  GateWithHypervisor world(script);
  world.begin();
  world.standby();
  EXPECT_THAT(world.notified, ElementsAre(if_m_t::PHASE_ANNOUNCED, if_m_t::PHASE_RESUMED));
}

TEST(HypervisorAtTheGate, NoVerdictInTimeLeavesItToThePolicy) {
  for (const auto policy : {protocol::NoVerdictPolicy::Cancel, protocol::NoVerdictPolicy::Continue}) {
    GateWithHypervisor world({}, policy);
    world.begin();
    world.standby();
    world.wait(std::chrono::seconds(4));
    EXPECT_THAT(world.notified, Contains(policy == protocol::NoVerdictPolicy::Cancel ? if_m_t::PHASE_CANCELLED
                                                                                     : if_m_t::PHASE_RESUMED));
  }
}

TEST(HypervisorAtTheGate, ADeadOneIsAskedAfterARestart) {
  HypervisorScript dies;
  dies.on_continue = OnVerdict::Die;
  dies.found_after_death = VmPlace::AtDestination;
  GateWithHypervisor world(dies);
  world.begin();
  world.standby();
  world.verdict(common::v1::VOTE_GO);
  EXPECT_TRUE(world.hypervisor().dead());
  EXPECT_THAT(world.notified, Not(Contains(if_m_t::PHASE_RESUMED)));
  world.restart();
  EXPECT_THAT(world.notified, Contains(if_m_t::PHASE_RESUMED));
}

TEST(HypervisorAtTheGate, ARestartDuringTheCopyEndsNothing) {
  GateWithHypervisor world({});
  world.begin();
  world.restart();
  EXPECT_TRUE(world.open());
  world.standby();
  world.verdict(common::v1::VOTE_GO);
  EXPECT_THAT(world.notified, ElementsAre(if_m_t::PHASE_ANNOUNCED, if_m_t::PHASE_PAUSED, if_m_t::PHASE_RESUMED));
}

}  // namespace
}  // namespace sami::tde
