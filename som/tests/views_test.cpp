#include "som/views.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "som/plan.h"
#include "som/tests/master.h"

namespace sami::som {
namespace {

namespace state = protocol::journal;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

struct Rollback {
  state::MigrationState in;
  common::v1::Outcome outcome;
  const char* begins;
  const char* says;
};

TEST(Views, TheRollbackSentenceIsTrueInEveryState) {
  const auto none = common::v1::OUTCOME_UNSPECIFIED;
  const auto moved = common::v1::OUTCOME_AT_DESTINATION;
  const auto stayed = common::v1::OUTCOME_AT_SOURCE;
  const Rollback rows[] = {
      {state::PLANNED, none, "yes", "resume the VM at server1"},
      {state::PREPARING, none, "yes", "abort this migration"},
      {state::PRECOPY, none, "yes", "fw1 still holds every record"},
      {state::STANDBY, none, "yes", "fw2 deletes only what this migration installed"},
      {state::SWITCHING, none, "yes", "resume the VM at server1"},
      {state::SWITCHING, moved, "no", "the VM runs at server2"},
      {state::PLANNED, moved, "no", "the VM runs at server2"},
      {state::READY, none, "yes", "cancel the move at the hypervisor"},
      {state::RELEASING, moved, "no", "fw1 is releasing"},
      {state::DONE, moved, "no", "a new move brings it back to server1"},
      {state::DONE_WITH_LOSS, moved, "no", "the VM runs at server2"},
      {state::ROLLING_BACK, stayed, "yes", "under way"},
      {state::ROLLED_BACK, stayed, "yes", "was rolled back"},
      {state::IN_DOUBT, none, "yes, if", "sami migration resolve m1 source"},
  };
  for (const auto& row : rows) {
    state::Migration migration;
    migration.set_id("m1");
    migration.set_state(row.in);
    migration.set_outcome(row.outcome);
    migration.set_source_place("server1");
    migration.set_destination_place("server2");
    *migration.add_transfers()->mutable_plan() = fw1_to_fw2();
    const std::string sentence = rollback_sentence(migration);
    EXPECT_THAT(sentence, StartsWith(row.begins)) << protocol::to_string(row.in);
    EXPECT_THAT(sentence, HasSubstr(row.says)) << protocol::to_string(row.in);
  }
}

TEST(Views, AMigrationIsShownInWords) {
  state::Migration migration;
  migration.set_id("m1");
  migration.set_state(state::DONE);
  *migration.mutable_subject() = vm1();
  migration.set_cause(common::v1::CAUSE_MAINTENANCE);
  migration.set_vote(common::v1::VOTE_GO);
  migration.set_outcome(common::v1::OUTCOME_AT_DESTINATION);
  auto& transfer = *migration.add_transfers();
  transfer.set_ready(true);
  transfer.set_source_released(true);
  transfer.set_destination_released(true);
  const auto shown = view(migration);
  EXPECT_EQ(shown.state(), "DONE");
  EXPECT_EQ(shown.cause(), "maintenance");
  EXPECT_EQ(shown.vote(), "GO");
  EXPECT_EQ(shown.outcome(), "AT_DESTINATION");
  EXPECT_EQ(shown.transfers(0).progress(), "released");
  EXPECT_TRUE(shown.final());
}

struct PlanTest : testing::Test {
  PlanTest() : hosts{{"fw1", true, false, profile("fw1")}, {"fw2", true, false, profile("fw2")}} {}
  std::vector<std::string> judge() {
    std::vector<std::string> texts;
    for (const auto& finding : findings(vm1(), {fw1_to_fw2()}, settings().machine.classes, hosts))
      texts.push_back(common::v1::FindingCode_Name(finding.code()) + " " + finding.detail());
    return texts;
  }
  void external(std::size_t host, bool moves) {
    auto& address = *hosts[host].profile.add_external_addresses();
    address.set_address(std::string("\xc6\x33\x64\x0a", 4));
    address.set_moves_with_subject(moves);
  }
  std::vector<protocol::HostView> hosts;
};

TEST_F(PlanTest, NothingStandsInTheWay) { EXPECT_THAT(judge(), IsEmpty()); }
TEST_F(PlanTest, AHostThatIsNotConnected) {
  hosts[0].connected = false;
  EXPECT_THAT(judge(), ElementsAre("FINDING_UNREACHABLE the agent of fw1 is not connected"));
}
TEST_F(PlanTest, ADrainedDestination) {
  hosts[1].drained = true;
  EXPECT_THAT(judge(), ElementsAre("FINDING_BUSY fw2 is drained: it takes no new transfers"));
}
TEST_F(PlanTest, AMissingClassContextOrNetwork) {
  hosts[0].profile.clear_classes();
  hosts[1].profile.clear_contexts();
  EXPECT_THAT(judge(), ElementsAre("FINDING_UNSUPPORTED fw1 has no class connection_tracking",
                                   "FINDING_UNSUPPORTED fw2 has no context default"));
  hosts[1].profile.add_contexts()->set_name("default");
  EXPECT_THAT(judge(), testing::Contains("FINDING_UNSUPPORTED fw2 does not know the virtual network blue in its "
                                         "context default"));
}
TEST_F(PlanTest, AClassThatOnlyWorksOneWay) {
  hosts[1].profile.mutable_classes(0)->clear_functions();
  hosts[1].profile.mutable_classes(0)->add_functions("upload");
  EXPECT_THAT(judge(), ElementsAre("FINDING_UNSUPPORTED fw2 cannot download the class connection_tracking"));
}
TEST_F(PlanTest, AnExternalAddressThatIsMissingOrShared) {
  external(0, true);
  EXPECT_THAT(judge(), ElementsAre("FINDING_MISSING_EXTERNAL_ADDRESS fw1 translates to 198.51.100.10, which moves "
                                   "with its subject; fw2 does not have it"));
  external(1, false);
  EXPECT_THAT(judge(), ElementsAre("FINDING_SHARED_EXTERNAL_ADDRESS 198.51.100.10 moves with its subject at fw1, "
                                   "but is shared at fw2"));
}

}  // namespace
}  // namespace sami::som
