// What the lab's hypervisor tells a gate and does on its word, or against it; the gate is scripted, the lab is real.
#include "lab/hypervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>

#include "lab/checks.h"
#include "lab/lab.h"

namespace sami::lab {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using At = Misbehaviour::At;

// Says MayPause when a move is announced, the verdict when the VM is paused, Concluded when it runs somewhere.
class ScriptedGate : public GateClient {
 public:
  explicit ScriptedGate(std::string verdict) : verdict_(std::move(verdict)) {}

  Result<std::string> announce(const std::string&, const std::string&, bool) override {
    heard.push_back("Announced");
    return std::string("move-1");
  }
  Result<void> notify(GatePhase phase, const std::string& id) override {
    EXPECT_EQ(id, "move-1");
    if (lost_calls > 0) {
      --lost_calls;
      return failure(ErrorKind::Reconnect, "restarting");
    }
    heard.push_back(phase == GatePhase::Paused ? "Paused" : phase == GatePhase::Resumed ? "Resumed" : "Cancelled");
    return {};
  }
  Result<std::unique_ptr<GateWatch>> watch(const std::string&) override {
    return std::unique_ptr<GateWatch>(std::make_unique<Watch>(*this));
  }

  std::vector<std::string> heard;
  int lost_calls = 0;

 private:
  class Watch : public GateWatch {
   public:
    explicit Watch(ScriptedGate& gate) : gate_(gate) {}
    Result<GateStatus> next(std::chrono::milliseconds) override {
      const auto& last = gate_.heard.back();
      if (gate_.verdict_ == "Refused") return GateStatus{"move-1", "", "", "Refused", "no such host"};
      if (last == "Announced") return GateStatus{"move-1", "m7", "StandingBy", "MayPause", ""};
      if (last == "Paused") return GateStatus{"move-1", "m7", "Continuing", gate_.verdict_, ""};
      return GateStatus{"move-1", "m7", "Concluding", "Concluded", last == "Resumed" ? "DONE" : "ROLLED_BACK"};
    }

   private:
    ScriptedGate& gate_;
  };
  std::string verdict_;
};

class HypervisorTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    LabOptions options;
    options.name = "hypervisor-" + std::to_string(::getpid());
    options.with_sami = false;
    auto up = Lab::up(options);
    ASSERT_TRUE(up) << up.error().message;
    lab_ = *up;
  }
  static void TearDownTestSuite() {
    if (!lab_) return;
    EXPECT_TRUE(Lab::down(lab_->state().name));
    EXPECT_THAT(leftovers(lab_->state().name), IsEmpty());
    lab_.reset();
  }
  void SetUp() override {
    if (!lab_) GTEST_SKIP() << "network namespaces need root";
    ASSERT_TRUE(lab_->detach("vm1"));
    ASSERT_TRUE(lab_->attach("vm1", "server1"));
    ASSERT_TRUE(lab_->announce("vm1", "server1"));
    ASSERT_TRUE(lab_->withdraw("vm1", "server2"));
  }
  static MoveReport move(ScriptedGate& gate, const MoveOptions& options = {}) {
    auto report = LabHypervisor(*lab_, &gate).move("vm1", "server2", options);
    EXPECT_TRUE(report) << report.error().message;
    return report ? *report : MoveReport{};
  }
  static std::optional<Lab> lab_;
};
std::optional<Lab> HypervisorTest::lab_;

TEST_F(HypervisorTest, MovesOnContinue) {
  ScriptedGate gate("Continue");
  gate.lost_calls = 2;  // the daemon is away for a moment
  MoveOptions options;
  options.pause = std::chrono::milliseconds(30);
  const auto report = move(gate, options);
  EXPECT_THAT(gate.heard, ElementsAre("Announced", "Paused", "Resumed"));
  EXPECT_TRUE(report.moved);
  EXPECT_GE(report.paused_milliseconds, 30);
  EXPECT_EQ(report.migration_id, "m7");
  EXPECT_EQ(report.final_state, "DONE");
  EXPECT_EQ(lab_->place_of("vm1"), "server2");
  EXPECT_EQ(Lab::open(lab_->state().name)->place_of("vm1"), "server2");
}

TEST_F(HypervisorTest, GoesBackOnCancel) {
  ScriptedGate gate("Cancel");
  const auto report = move(gate);
  EXPECT_THAT(gate.heard, ElementsAre("Announced", "Paused", "Cancelled"));
  EXPECT_FALSE(report.moved);
  EXPECT_EQ(report.final_state, "ROLLED_BACK");
  EXPECT_EQ(lab_->place_of("vm1"), "server1");
}

TEST_F(HypervisorTest, StaysWhenRefused) {
  ScriptedGate gate("Refused");
  const auto report = move(gate);
  EXPECT_THAT(gate.heard, ElementsAre("Announced"));
  EXPECT_EQ(report.detail, "no such host");
  EXPECT_EQ(lab_->place_of("vm1"), "server1");
}

TEST_F(HypervisorTest, DefiesTheVerdictWhenToldTo) {
  ScriptedGate against("Cancel");
  MoveOptions goes_on;
  goes_on.misbehaviour.continue_on_cancel = true;
  EXPECT_TRUE(move(against, goes_on).moved);
  EXPECT_THAT(against.heard, ElementsAre("Announced", "Paused", "Resumed"));

  SetUp();
  ScriptedGate in_favour("Continue");
  MoveOptions goes_back;
  goes_back.misbehaviour.cancel_on_continue = true;
  EXPECT_FALSE(move(in_favour, goes_back).moved);
  EXPECT_THAT(in_favour.heard, ElementsAre("Announced", "Paused", "Cancelled"));
}

TEST_F(HypervisorTest, DiesOrGivesUpWhereToldTo) {
  MoveOptions dies;
  dies.misbehaviour.die_at = At::Paused;
  ScriptedGate gate("Continue");
  EXPECT_TRUE(move(gate, dies).died);
  EXPECT_THAT(gate.heard, ElementsAre("Announced", "Paused"));

  for (const auto point : {At::Announced, At::StandingBy, At::Paused, At::Instructed}) {
    SetUp();
    MoveOptions gives_up;
    gives_up.misbehaviour.cancel_at = point;
    ScriptedGate other("Continue");
    EXPECT_FALSE(move(other, gives_up).moved);
    EXPECT_EQ(other.heard.back(), "Cancelled");
    EXPECT_EQ(lab_->place_of("vm1"), "server1");
  }
}

TEST_F(HypervisorTest, ImpossibleMovesAreRefused) {
  ScriptedGate gate("Continue");
  LabHypervisor hypervisor(*lab_, &gate);
  EXPECT_EQ(hypervisor.move("vm1", "server1", {}).error().kind, ErrorKind::InvalidInput);
  EXPECT_EQ(hypervisor.move("vm1", "server3", {}).error().kind, ErrorKind::InvalidInput);
  EXPECT_EQ(hypervisor.move("vm9", "server2", {}).error().kind, ErrorKind::InvalidInput);
  EXPECT_THAT(gate.heard, IsEmpty());
}

}  // namespace
}  // namespace sami::lab
