// kill -9 of every daemon at every point of a move, and a hypervisor that acts against the verdict or dies: the
// migration ends where the VM is, nothing is lost, nothing is there twice.
#include <signal.h>

#include "lab/poll.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using At = Misbehaviour::At;

constexpr int kConnections = 20;
constexpr std::chrono::milliseconds kPatience{30000};

std::string name_of(At point) {
  switch (point) {
    case At::Announced:
      return "Announced";
    case At::StandingBy:
      return "StandingBy";
    case At::Paused:
      return "Paused";
    case At::Instructed:
      return "Instructed";
    case At::Resumed:
      return "Resumed";
    case At::Never:
      break;
  }
  return "Never";
}

class Crash : public SystemTest {
 protected:
  // vm1's entries are where vm1 is, all of them, and nowhere else; its connections live.
  void expect_whole(Conversers& traffic) {
    const bool away = lab().place_of("vm1") == "server2";
    const std::string here = away ? "fw2" : "fw1";
    const std::string there = away ? "fw1" : "fw2";
    EXPECT_TRUE(poll_until(kPatience, [&] { return entries(there).empty(); }));
    EXPECT_THAT(entries(there), IsEmpty());
    EXPECT_THAT(entries(here), SizeIs(kConnections));
    const auto progress = traffic.client.wait_for_progress(10, kPatience);
    EXPECT_TRUE(progress) << progress.error().message;
    const auto last = traffic.client.stop();
    ASSERT_TRUE(last);
    EXPECT_EQ(last->broken, 0) << to_string(*last);
    EXPECT_EQ(invalid_packets(), 0u);
  }
};

class Kill : public Crash, public ::testing::WithParamInterface<std::tuple<At, std::string>> {};

TEST_P(Kill, MigrationEndsWhereTheVmIs) {
  const auto& [point, victim] = GetParam();
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.on_reaching = [&, at = point, name = victim](At reached) {
    if (reached != at) return;
    ASSERT_TRUE(lab().kill_daemon(name, SIGKILL));
    const auto again = lab().start_daemon(name);
    ASSERT_TRUE(again) << again.error().message;
  };
  const auto report = move("server2", options);
  EXPECT_EQ(report.moved, lab().place_of("vm1") == "server2");
  if (!report.final_state.empty()) {
    EXPECT_EQ(report.final_state, report.moved ? "DONE" : "ROLLED_BACK");
  }
  expect_whole(traffic);
}

INSTANTIATE_TEST_SUITE_P(
    EveryDaemonAtEveryPoint, Kill,
    ::testing::Combine(::testing::Values(At::Announced, At::StandingBy, At::Paused, At::Instructed, At::Resumed),
                       ::testing::Values("som1", "fw1", "fw2", "tde1")),
    [](const auto& tested) { return std::get<1>(tested.param) + "_at_" + name_of(std::get<0>(tested.param)); });

using CrashTest = Crash;

TEST_F(CrashTest, HypervisorGoesBackAfterGo) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.cancel_on_continue = true;
  const auto report = move("server2", options);
  EXPECT_FALSE(report.moved);
  EXPECT_EQ(report.final_state, "ROLLED_BACK");
  expect_whole(traffic);
}

TEST_F(CrashTest, HypervisorGoesOnAgainstANoGo) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.continue_on_cancel = true;
  // Without an agent at the destination there is no go; it comes back, and what can still be saved is saved.
  options.on_reaching = [&](At reached) {
    if (reached == At::Paused) {
      ASSERT_TRUE(lab().kill_daemon("fw2", SIGKILL));
    }
    if (reached == At::Resumed) {
      ASSERT_TRUE(lab().start_daemon("fw2"));
    }
  };
  const auto report = move("server2", options);
  EXPECT_TRUE(report.moved);
  EXPECT_EQ(report.instruction, "Cancel");
  expect_whole(traffic);
}

TEST_F(CrashTest, HypervisorPausesWithoutLeave) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.pause_without_leave = true;
  EXPECT_TRUE(move("server2", options).moved);
  expect_whole(traffic);
}

// It dies after go; who takes its place finds the VM at the source and says so.
TEST_F(CrashTest, HypervisorDiesAfterGoAndTheVmIsFoundAtTheSource) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.die_at = At::Instructed;
  const auto report = move("server2", options);
  EXPECT_TRUE(report.died);
  ASSERT_TRUE(lab().attach("vm1", "server1"));
  ASSERT_TRUE(gate().notify(GatePhase::Cancelled, report.notification_id));
  expect_whole(traffic);
}

TEST_F(CrashTest, HypervisorDiesAfterTheVmRunsAtTheDestination) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.die_at = At::Resumed;
  const auto report = move("server2", options);
  EXPECT_TRUE(report.died);
  ASSERT_TRUE(gate().notify(GatePhase::Resumed, report.notification_id));
  expect_whole(traffic);
}

}  // namespace
}  // namespace sami::lab
