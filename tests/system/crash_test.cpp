// A hypervisor that acts against the verdict or dies: the migration ends where the VM is, nothing is lost, nothing is
// there twice. What becomes of daemons that die is in state_crash_test.cpp.
#include <signal.h>

#include "lab/poll.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using At = Misbehaviour::At;

constexpr int kConnections = 20;

using HypervisorTest = SystemTest;

TEST_F(HypervisorTest, GoesBackAfterGo) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.cancel_on_continue = true;
  const auto report = move("server2", options);
  EXPECT_FALSE(report.moved);
  EXPECT_EQ(report.final_state, "ROLLED_BACK");
  expect_whole(traffic, kConnections);
}

TEST_F(HypervisorTest, GoesOnAgainstANoGo) {
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
  expect_whole(traffic, kConnections);
}

TEST_F(HypervisorTest, PausesWithoutLeave) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.pause_without_leave = true;
  EXPECT_TRUE(move("server2", options).moved);
  expect_whole(traffic, kConnections);
}

// It dies after go; who takes its place finds the VM at the source and says so.
TEST_F(HypervisorTest, DiesAfterGoAndTheVmIsFoundAtTheSource) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.die_at = At::Instructed;
  const auto report = move("server2", options);
  EXPECT_TRUE(report.died);
  ASSERT_TRUE(lab().attach("vm1", "server1"));
  ASSERT_TRUE(gate().notify(GatePhase::Cancelled, report.notification_id));
  expect_whole(traffic, kConnections);
}

// With the gate's: who comes after them is asked where the VM runs.
TEST_F(HypervisorTest, DiesTogetherWithTheGate) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.die_at = At::Instructed;
  options.on_reaching = [&](At reached) {
    if (reached != At::Instructed) return;
    ASSERT_TRUE(lab().kill_daemon("tde1", SIGKILL));
    ASSERT_TRUE(lab().start_daemon("tde1"));
  };
  const auto report = move("server2", options);
  EXPECT_TRUE(report.died);
  const auto successor = gate().watch(report.notification_id);
  ASSERT_TRUE(successor);
  EXPECT_TRUE(poll_until(milliseconds(5000), [&] {
    const auto status = (*successor)->next(milliseconds(500));
    return status && status->instruction == "FindOut";
  }));
  ASSERT_TRUE(lab().attach("vm1", "server1"));
  ASSERT_TRUE(gate().notify(GatePhase::Cancelled, report.notification_id));
  expect_whole(traffic, kConnections);
}

TEST_F(HypervisorTest, DiesAfterTheVmRunsAtTheDestination) {
  up(Nat::Snat);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  MoveOptions options;
  options.misbehaviour.die_at = At::Resumed;
  const auto report = move("server2", options);
  EXPECT_TRUE(report.died);
  ASSERT_TRUE(gate().notify(GatePhase::Resumed, report.notification_id));
  expect_whole(traffic, kConnections);
}

}  // namespace
}  // namespace sami::lab
