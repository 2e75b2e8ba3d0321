// A move that does not take place: the VM goes on at the source, and the destination is as it was before.
#include <sstream>

#include "lab/process.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using ::testing::SizeIs;
using At = Misbehaviour::At;

std::string name_of(At point) {
  switch (point) {
    case At::Announced: return "Announced";
    case At::StandingBy: return "StandingBy";
    case At::Paused: return "Paused";
    case At::Instructed: return "AfterGo";
    case At::Resumed: return "Resumed";
    case At::Never: break;
  }
  return "Never";
}

class Rollback : public SystemTest, public ::testing::WithParamInterface<std::tuple<At, Nat>> {
 protected:
  // One of vm1's connections stands at the destination already, as it does after a path has changed to and fro.
  void copy_one_to_the_destination() {
    RunOptions options;
    options.network_namespace = lab().namespace_of("fw1");
    const auto saved = run({"conntrack", "-L", "-o", "save", "-p", "tcp", "-s", kVm1Address}, options);
    ASSERT_TRUE(saved);
    std::istringstream words(saved->output.substr(0, saved->output.find('\n')));
    std::vector<std::string> line{"conntrack"};
    for (std::string word; words >> word;) line.push_back(word);
    options.network_namespace = lab().namespace_of("fw2");
    const auto added = run(line, options);
    ASSERT_TRUE(added) << added.error().message;
  }
};

TEST_P(Rollback, LeavesBothFirewallsAsTheyWere) {
  const auto [point, nat] = GetParam();
  up(nat);
  auto vm1 = vm1_traffic(TrafficKind::TcpEcho, 20);
  // Something of its own at the destination.
  auto own = converse("fw2", "vm3", kVm3Address, 7009, 7009, TrafficKind::TcpEcho, 3);
  ASSERT_TRUE(vm1.client.wait_for_progress(5));
  if (nat == Nat::None) copy_one_to_the_destination();
  const auto source_before = entries("fw1");
  const auto destination_before = entries("fw2");
  ASSERT_THAT(destination_before, SizeIs(nat == Nat::None ? 4 : 3));

  MoveOptions options;
  options.misbehaviour.cancel_at = point;
  const auto report = move("server2", options);
  EXPECT_FALSE(report.moved);
  EXPECT_EQ(report.final_state, "ROLLED_BACK");
  if (point == At::Instructed) {
    EXPECT_EQ(report.instruction, "Continue");
  }

  const auto progress = vm1.client.wait_for_progress(20);
  EXPECT_TRUE(progress) << progress.error().message;
  EXPECT_EQ(entries("fw2"), destination_before);
  EXPECT_EQ(entries("fw1"), source_before);
  EXPECT_EQ(invalid_packets(), 0u);
  const auto last = vm1.client.stop();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->broken, 0) << to_string(*last);

  // And the next move of the same VM takes place.
  EXPECT_TRUE(own.client.wait_for_progress(5));
  EXPECT_TRUE(move("server2").moved);
}

INSTANTIATE_TEST_SUITE_P(EveryPhase, Rollback,
                         ::testing::Combine(::testing::Values(At::Announced, At::StandingBy, At::Paused,
                                                              At::Instructed),
                                            ::testing::Values(Nat::None, Nat::Both)),
                         [](const auto& tested) {
                           return name_of(std::get<0>(tested.param)) + "_" +
                                  std::string(to_string(std::get<1>(tested.param)));
                         });

}  // namespace
}  // namespace sami::lab
