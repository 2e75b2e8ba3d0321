// The three machines wired together, with drivers in memory.
#include <gtest/gtest.h>

#include "protocol/tests/harness.h"

namespace sami::protocol::test {
namespace {

using namespace std::chrono_literals;
using Kind = HypervisorInstruction::Kind;

void fill(MapDriver& driver, int records) {
  for (int i = 0; i < records; ++i) driver.put("flow" + std::to_string(i), "state" + std::to_string(i));
}

bool reaches(World& world, journal::MigrationState state, Duration limit = 20s) {
  const bool reached = world.run_until([&] { return world.state() == state; }, limit);
  if (!reached) {
    for (const auto& entry : world.audit)
      std::printf("%s %s: %s\n", entry.migration_id.c_str(), entry.event.c_str(), entry.detail.c_str());
  }
  return reached;
}

TEST(Loopback, GoMovesEveryRecord) {
  World world;
  fill(world.driver("fw1"), 1000);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  EXPECT_TRUE(world.instructed(Kind::MayPause));
  world.driver("fw1").put("late", "before the pause");
  world.driver("fw1").end("flow3");
  world.pause();
  world.settle();  // no timer between PAUSED and the verdict
  ASSERT_EQ(world.state(), journal::READY);
  EXPECT_TRUE(world.instructed(Kind::Continue));
  EXPECT_TRUE(world.driver("fw1").barrier);
  EXPECT_EQ(world.driver("fw2").table, world.driver("fw1").table);
  world.driver("fw1").put("residue", "a peer spoke to the paused VM");
  const auto expected = world.driver("fw1").table;
  world.resume_at_destination();
  ASSERT_TRUE(reaches(world, journal::DONE));
  EXPECT_EQ(world.driver("fw2").table, expected);
  EXPECT_TRUE(world.driver("fw1").table.empty());
  EXPECT_FALSE(world.driver("fw1").barrier);
  EXPECT_FALSE(world.driver("fw1").following);
  EXPECT_TRUE(world.soa("fw1").transfers().empty());
  EXPECT_TRUE(world.soa("fw2").transfers().empty());
  world.settle();
  EXPECT_TRUE(world.instructed(Kind::Concluded));
  EXPECT_TRUE(world.gate().moves().empty());
}

TEST(Loopback, RollbackLeavesTheDestinationAsItWas) {
  World world;
  fill(world.driver("fw1"), 50);
  world.driver("fw2").put("flow7", "state7");  // identical: adopted
  world.driver("fw2").put("stranger", "of fw2");
  const auto before = world.driver("fw2").table;
  const auto source = world.driver("fw1").table;
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.pause();
  world.settle();
  ASSERT_EQ(world.state(), journal::READY);
  world.resume_at_source();  // against the verdict
  ASSERT_TRUE(reaches(world, journal::ROLLED_BACK));
  EXPECT_EQ(world.driver("fw2").table, before);
  EXPECT_EQ(world.driver("fw1").table, source);
  EXPECT_FALSE(world.driver("fw1").barrier);
}

TEST(Loopback, ForeignRecordIsNoGo) {
  World world;
  fill(world.driver("fw1"), 5);
  world.driver("fw1").put("foreign1", "not of the subject");
  world.announce();
  ASSERT_TRUE(world.run_until([&] { return world.instructed(Kind::Cancel); }, 10s));
  EXPECT_EQ(world.migration().vote(), common::v1::VOTE_NO_GO);
  EXPECT_NE(world.migration().vote_reason().find("FOREIGN"), std::string::npos) << world.migration().vote_reason();
  world.resume_at_source();
  ASSERT_TRUE(reaches(world, journal::ROLLED_BACK));
  EXPECT_TRUE(world.driver("fw2").table.empty());
}

TEST(Loopback, MovedIsForwardOnly) {
  World world;
  fill(world.driver("fw1"), 20);
  world.driver("fw2").put("flow3", "younger");
  world.announce(if_m_t::v1::PHASE_MOVED);
  ASSERT_TRUE(reaches(world, journal::DONE));
  EXPECT_EQ(world.driver("fw2").table.size(), 20U);
  EXPECT_EQ(world.driver("fw2").table["flow3"], "state3");
  EXPECT_EQ(world.driver("fw1").barriers_raised, 0);
}

TEST(Loopback, PathFailedWithoutItsSourceEnds) {
  World world;
  world.disconnect_agent("fw1");
  world.announce(if_m_t::v1::PHASE_PATH_FAILED);
  ASSERT_TRUE(reaches(world, journal::DONE_WITH_LOSS, 300s));
  EXPECT_GT(world.migration().missing_size(), 0);
}

TEST(Loopback, NoOutcomeIsInDoubtUntilResolved) {
  World world;
  fill(world.driver("fw1"), 5);
  world.gate_config.repeat_interval = 500ms;
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.pause();
  ASSERT_TRUE(reaches(world, journal::IN_DOUBT, 60s));
  world.som(som_event::Abort{1, world.migration().id(), "alice", ""});
  EXPECT_NE(world.replies.back().error, "");
  world.run(600s);  // nothing expires
  EXPECT_EQ(world.driver("fw2").table.size(), 5U);
  world.som(som_event::Resolve{2, world.migration().id(), common::v1::OUTCOME_AT_DESTINATION, "alice"});
  EXPECT_EQ(world.replies.back().error, "");
  ASSERT_TRUE(reaches(world, journal::DONE));
}

TEST(Loopback, OverrunStartsANewGeneration) {
  World world;
  fill(world.driver("fw1"), 5);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.driver("fw1").end("flow1");
  world.driver("fw1").overrun = true;
  world.driver("fw1").changed.clear();
  world.run(1s);
  EXPECT_FALSE(world.driver("fw2").table.contains("flow1"));
  world.pause();
  world.settle();
  EXPECT_EQ(world.state(), journal::READY);
}

// Every agent, the SOM and the gate may die at every state; the outcome decides.
class Restart : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(Restart, EndsAsTheOutcomeSays) {
  const auto& [who, when] = GetParam();
  World world;
  const auto strike = [&, name = who](int moment) {
    if (moment != std::get<1>(GetParam())) return;
    if (name == "som")
      world.restart_som();
    else if (name == "gate")
      world.restart_gate();
    else
      world.restart_agent(name);
  };
  fill(world.driver("fw1"), 300);
  world.announce();
  strike(0);
  world.settle();
  strike(1);
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  strike(2);
  world.run(2s);
  world.driver("fw1").put("flow1", "changed");
  world.pause();
  strike(3);
  if (when == 3 && who != "gate") world.pause();
  world.run(1s);
  strike(4);
  world.run(1s);
  world.driver("fw1").put("residue", "late");
  const auto expected = world.driver("fw1").table;
  world.resume_at_destination();
  strike(5);
  world.run(100ms);
  strike(6);
  world.run_until([&] { return is_final(world.state()); }, 100s);
  ASSERT_TRUE(reaches(world, journal::DONE)) << to_string(world.state()) << " " << world.migration().missing(0);
  EXPECT_EQ(world.driver("fw2").table, expected);
  EXPECT_TRUE(world.driver("fw1").table.empty());
  world.run(5s);
  EXPECT_TRUE(world.gate().moves().empty());
  EXPECT_TRUE(world.soa("fw2").transfers().empty());
}

INSTANTIATE_TEST_SUITE_P(All, Restart,
                         ::testing::Combine(::testing::Values("som", "fw1", "fw2", "gate"), ::testing::Range(0, 7)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + std::to_string(std::get<1>(test.param));
                         });

}  // namespace
}  // namespace sami::protocol::test
