// What the loopback does not show: refusals, leases, policies, lost journals.
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
  return world.run_until([&] { return world.state() == state; }, limit);
}

// ---- SOA

TEST(Soa, RefusesAnOlderEpoch) {
  World world;
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  if_m_a::v1::MasterMessage message;
  auto& request = *message.mutable_get_ready();
  request.mutable_transfer()->set_migration_id("older");
  request.mutable_transfer()->set_subject_id("vm1");
  request.mutable_transfer()->set_epoch(1);  // same epoch, another migration
  *request.mutable_subject() = world.announcement.subject();
  *request.mutable_plan() = world.announcement.transfers(0);
  std::string answer;
  world.lose_from_agent = [&](const std::string&, const if_m_a::v1::AgentMessage& m) {
    if (m.has_feedback() && m.feedback().transfer().migration_id() == "older")
      answer = m.feedback().classes(0).findings(0).ShortDebugString();
    return false;
  };
  world.agent("fw2", soa_event::FromMaster{message});
  EXPECT_NE(answer.find("FINDING_STALE_EPOCH"), std::string::npos) << answer;
  EXPECT_EQ(world.soa("fw2").transfers().size(), 1U);
}

TEST(Soa, LeasesExpireWithoutTheMaster) {
  World world;
  fill(world.driver("fw1"), 10);
  world.driver("fw2").put("flow1", "state1");
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.disconnect_agent("fw1");
  world.disconnect_agent("fw2");
  world.run(200s);
  EXPECT_EQ(world.driver("fw2").table.size(), 1U);
  EXPECT_FALSE(world.driver("fw1").following);
  EXPECT_TRUE(world.soa("fw1").transfers().empty());
  EXPECT_TRUE(world.soa("fw2").transfers().empty());
  // They come back, and the migration goes on as if nothing had been.
  world.connect_agent("fw1");
  world.connect_agent("fw2");
  world.run(5s);
  EXPECT_EQ(world.driver("fw2").table.size(), 10U);
  world.pause();
  world.run(1s);
  EXPECT_EQ(world.state(), journal::READY);
}

TEST(Soa, DestinationThatLostEverythingIsFilledAgain) {
  World world;
  fill(world.driver("fw1"), 10);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.pause();
  world.settle();
  ASSERT_EQ(world.state(), journal::READY);
  world.driver("fw2").table.clear();  // the host rebooted
  world.restart_agent("fw2");
  world.run(5s);
  EXPECT_EQ(world.driver("fw2").table.size(), 10U);
  world.resume_at_destination();
  ASSERT_TRUE(reaches(world, journal::DONE));
  EXPECT_EQ(world.driver("fw2").table.size(), 10U);
}

TEST(Soa, ChunksAndAcknowledgementsMayBeLost) {
  World world;
  fill(world.driver("fw1"), 5000);
  int count = 0;
  world.agent_config.chunk_bytes = 4096;
  world.lose_to_agent = [&](const std::string&, const if_m_a::v1::MasterMessage& m) {
    return (m.has_download_state() || m.has_progress()) && ++count % 7 == 0;
  };
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY, 300s));
  world.pause();
  ASSERT_TRUE(reaches(world, journal::READY));
  EXPECT_EQ(world.driver("fw2").table, world.driver("fw1").table);
}

TEST(Soa, GarbageIsRefusedAndLeavesNoTrace) {
  World world;
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  const auto reference = [&] {
    common::v1::TransferReference r;
    r.set_migration_id(world.migration().id());
    r.set_epoch(1);
    r.set_subject_id("vm1");
    return r;
  }();
  if_m_a::v1::MasterMessage message;
  *message.mutable_download_state()->mutable_transfer() = reference;
  message.mutable_download_state()->set_chunk("\xff\xff\xff garbage");
  world.agent("fw2", soa_event::FromMaster{message});
  world.run(1s);
  EXPECT_EQ(world.migration().vote(), common::v1::VOTE_NO_GO);
  EXPECT_TRUE(world.driver("fw2").table.empty());
}

TEST(Soa, LowersBarriersWhenItsJournalFails) {
  World world;
  fill(world.driver("fw1"), 3);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.pause();
  world.settle();
  ASSERT_TRUE(world.driver("fw1").barrier);
  world.agent("fw1", soa_event::JournalUnavailable{});
  world.settle();
  EXPECT_FALSE(world.driver("fw1").barrier);
}

// ---- SOM

TEST(Som, RefusesWhoIsNotWhoTheCertificateSays) {
  World world;
  if_m_a::v1::AgentMessage message;
  message.mutable_authorize()->set_identity("spiffe://test/sami/soa/fw2");
  message.mutable_authorize()->add_protocol_versions(1);
  Som som(world.som_config, {}, world.now);
  som.step(world.now, som_event::AgentConnected{"fw1"});
  auto step = som.step(world.now, som_event::FromAgent{"fw1", message});
  ASSERT_EQ(step.to_agents.size(), 1U);
  EXPECT_NE(step.to_agents[0].message.refused().reason().find("sami/soa/fw1"), std::string::npos);
  message.mutable_authorize()->set_identity("spiffe://test/sami/soa/fw1");
  message.mutable_authorize()->set_protocol_versions(0, 99);
  step = som.step(world.now, som_event::FromAgent{"fw1", message});
  EXPECT_NE(step.to_agents[0].message.refused().reason().find("version"), std::string::npos);
}

TEST(Som, SerialisesTheMigrationsOfASubject) {
  World world;
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.announcement.set_notification_id("n2");
  world.announce();
  world.settle();
  ASSERT_EQ(world.instructions.back().kind, Kind::Refused);
  EXPECT_NE(world.instructions.back().detail.find("BUSY"), std::string::npos);
  EXPECT_EQ(world.master().migrations().size(), 1U);
}

TEST(Som, MalformedAnnouncementIsRefusedWithTheField) {
  World world;
  world.announcement.mutable_subject()->mutable_interfaces(0)->set_addresses(0, "abc");
  world.announce();
  world.settle();
  ASSERT_EQ(world.instructions.back().kind, Kind::Refused);
  EXPECT_NE(world.instructions.back().detail.find("addresses"), std::string::npos) << world.instructions.back().detail;
}

// Of a leftover nothing is updated, and yet what it installed is its own.
TEST(Soa, AnInterruptedInstallOfALeftoverIsRolledBack) {
  World world({"fw1", "fw2", "fw3"});
  fill(world.driver("fw1"), 4);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.pause();
  world.settle();
  world.disconnect_agent("fw1");
  world.driver("fw1").put("unsent", "came late");
  world.resume_at_destination();
  ASSERT_TRUE(reaches(world, journal::DONE_WITH_LOSS, 100s));
  world.connect_agent("fw1");
  world.run(6s);
  world.announcement.set_notification_id("n2");
  world.announcement.mutable_transfers(0)->set_source_host("fw2");
  world.announcement.mutable_transfers(0)->set_destination_host("fw3");
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.driver("fw3").interruptions = 1;
  world.gate(gate_event::VmPaused{"n2"});
  ASSERT_TRUE(world.run_until([&] { return world.migration().transfers(1).ready(); }, 20s));
  ASSERT_EQ(world.driver("fw3").interruptions, 0);
  EXPECT_EQ(world.driver("fw3").table.size(), 5U);
  world.gate(gate_event::VmResumedAtSource{"n2"});
  ASSERT_TRUE(reaches(world, journal::ROLLED_BACK));
  EXPECT_TRUE(world.driver("fw3").table.empty());
}

TEST(Som, SourceThatWasNotReleasedIsALeftoverOfTheNextMigration) {
  World world({"fw1", "fw2", "fw3"});
  fill(world.driver("fw1"), 4);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.pause();
  world.settle();
  world.disconnect_agent("fw1");
  world.driver("fw1").put("unsent", "came late");
  world.resume_at_destination();
  ASSERT_TRUE(reaches(world, journal::DONE_WITH_LOSS, 100s));
  world.connect_agent("fw1");
  world.run(6s);
  EXPECT_EQ(world.driver("fw1").table.size(), 5U);  // told to keep them
  ASSERT_EQ(world.master().subjects().size(), 1U);
  ASSERT_EQ(world.master().subjects()[0].record.holders_size(), 1);
  world.announcement.set_notification_id("n2");
  world.announcement.mutable_transfers(0)->set_source_host("fw2");
  world.announcement.mutable_transfers(0)->set_destination_host("fw3");
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  ASSERT_EQ(world.migration().transfers_size(), 2);
  world.gate(gate_event::VmPaused{"n2"});
  world.run(1s);
  world.gate(gate_event::VmResumedAtDestination{"n2"});
  ASSERT_TRUE(reaches(world, journal::DONE));
  EXPECT_EQ(world.driver("fw3").table.size(), 5U);
  EXPECT_EQ(world.master().subjects()[0].record.holders_size(), 0);
}

// Forced, or the hypervisor went on against the vote.
TEST(Som, WhatTheDestinationCouldNotTakeStaysAtTheSource) {
  World world;
  fill(world.driver("fw1"), 3);
  world.driver("fw1").put("foreign", "the destination refuses it");
  world.announcement.set_force(true);
  world.announce();
  world.run(2s);
  world.pause();
  world.run(3s);
  world.resume_at_destination();
  ASSERT_TRUE(reaches(world, journal::DONE_WITH_LOSS, 100s));
  EXPECT_EQ(world.driver("fw1").table.size(), 4U);
  ASSERT_EQ(world.master().subjects()[0].record.holders_size(), 1);
  EXPECT_EQ(world.master().subjects()[0].record.holders(0).host(), "fw1");
}

TEST(Som, PrepareRefusedIsNoGoAndForceGoesOn) {
  for (const bool force : {false, true}) {
    World world;
    world.driver("fw2").refuse = true;
    world.announcement.set_force(force);
    world.announce();
    world.run(1s);
    EXPECT_EQ(world.migration().vote(), force ? common::v1::VOTE_UNSPECIFIED : common::v1::VOTE_NO_GO);
    world.pause();
    world.run(1s);
    EXPECT_EQ(world.migration().vote(), force ? common::v1::VOTE_GO : common::v1::VOTE_NO_GO);
  }
}

TEST(Som, NobodyLearnsWithinAPrefixThatHasAnothersAddress) {
  World world;
  if_m_t::v1::TdeMessage message;
  auto& other = *message.mutable_inventory()->add_places();
  other.mutable_subject()->set_id("another");
  auto& nic = *other.mutable_subject()->add_interfaces();
  nic.set_vn_name(world.announcement.subject().interfaces(0).vn_name());
  nic.add_addresses(std::string("\x0a\x01\x02\x14", 4));
  world.som(som_event::FromTde{"tde1", message});
  auto& prefix = *world.announcement.mutable_subject()->mutable_interfaces(0)->add_learned_within();
  prefix.set_address(std::string("\x0a\x01\x02\x00", 4));
  prefix.set_length(24);
  world.announce();
  world.settle();
  EXPECT_TRUE(world.master().migrations().empty());
  prefix.set_address(std::string("\x0a\x01\x03\x00", 4));
  world.announcement.set_notification_id("n2");
  world.announce();
  world.settle();
  EXPECT_EQ(world.master().migrations().size(), 1U);
}

TEST(Som, ALaterContradictingOutcomeIsIgnored) {
  World world;
  fill(world.driver("fw1"), 2);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.pause();
  world.settle();
  world.lose_to_agent = [](const std::string&, const if_m_a::v1::MasterMessage& m) { return m.has_release(); };
  world.resume_at_destination();
  ASSERT_TRUE(reaches(world, journal::RELEASING));
  if_m_t::v1::TdeMessage message;
  message.mutable_notify()->set_notification_id("n1");
  message.mutable_notify()->set_phase(if_m_t::v1::PHASE_CANCELLED);
  message.mutable_notify()->set_sequence(world.migration().last_sequence() + 1);
  world.som(som_event::FromTde{"tde1", message});
  EXPECT_EQ(world.migration().outcome(), common::v1::OUTCOME_AT_DESTINATION);
  world.lose_to_agent = {};
  ASSERT_TRUE(reaches(world, journal::DONE));
}

TEST(Som, EndedMigrationsAreForgottenAtTheLimit) {
  World world;
  world.som_config.keep_ended = 2;
  world.restart_som();
  for (int i = 0; i < 4; ++i) {
    world.announcement.set_notification_id("m" + std::to_string(i));
    world.announce();
    world.settle();
    world.gate(gate_event::VmResumedAtSource{"m" + std::to_string(i)});
    ASSERT_TRUE(reaches(world, journal::ROLLED_BACK));
    world.run(1s);
  }
  EXPECT_EQ(world.master().migrations().size(), 2U);
}

// ---- gate

// After a fall back to RECEIVING the subject may run here already.
TEST(Soa, ResidueUpdatesNothingThatStandsThere) {
  World world;
  fill(world.driver("fw1"), 2);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  if_m_a::v1::StateChunk chunk;
  chunk.set_generation(world.migration().transfers(0).generation() + 1);
  chunk.set_sequence(1);
  chunk.set_round(1);
  chunk.set_residue(true);
  chunk.set_state_class(std::string(class_name));
  for (const auto* key : {"flow0", "came late"}) {
    chunk.add_records()->set_key(key);
    chunk.mutable_records()->rbegin()->set_body("of the residue");
  }
  if_m_a::v1::MasterMessage message;
  auto& reference = *message.mutable_download_state()->mutable_transfer();
  reference.set_migration_id(world.migration().id());
  reference.set_epoch(world.migration().epoch());
  reference.set_subject_id(world.migration().subject().id());
  message.mutable_download_state()->set_chunk(chunk.SerializeAsString());
  world.lose_from_agent = [](const std::string&, const if_m_a::v1::AgentMessage& m) { return m.has_progress(); };
  world.agent("fw2", soa_event::FromMaster{message});
  world.settle();
  EXPECT_EQ(world.driver("fw2").table.at("flow0"), "state0");
  EXPECT_EQ(world.driver("fw2").table.at("came late"), "of the residue");
}

TEST(Soa, DestinationWithoutAMasterMakesDoAndAsksForEverythingAgain) {
  World world;
  fill(world.driver("fw1"), 3);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  EXPECT_EQ(world.driver("fw2").made_do, 0);
  world.disconnect_agent("fw2");
  world.settle();
  EXPECT_EQ(world.driver("fw2").made_do, 1);
  world.connect_agent("fw2");
  world.run(1s);
  EXPECT_TRUE(world.migration().transfers(0).standby());
  EXPECT_GE(world.migration().transfers(0).generation(), 2U);
  world.pause();
  world.run(200ms);
  EXPECT_EQ(world.migration().vote(), common::v1::VOTE_GO);
}

// What earlier rounds brought is all there is.
TEST(Soa, ReleasedWithoutAFinalRoundItMakesDo) {
  World world;
  fill(world.driver("fw1"), 3);
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.disconnect_agent("fw1");
  world.resume_at_destination();
  ASSERT_TRUE(reaches(world, journal::DONE_WITH_LOSS, 200s));
  EXPECT_EQ(world.driver("fw2").table.size(), 3U);
  EXPECT_GE(world.driver("fw2").made_do, 1);
}

TEST(Gate, PolicyDecidesWithoutAVerdict) {
  for (const auto policy : {NoVerdictPolicy::Continue, NoVerdictPolicy::Cancel}) {
    GateConfig config;
    config.no_verdict = policy;
    Gate gate(config, {});
    World world;
    world.announcement.set_phase(if_m_t::v1::PHASE_ANNOUNCED);
    Instant now{0};
    gate.step(now, gate_event::MoveBegan{world.announcement});
    auto step = gate.step(now, gate_event::VmPaused{"n1"});
    EXPECT_TRUE(step.instructions.empty());
    now = gate.next_deadline();
    step = gate.step(now, gate_event::Tick{});
    ASSERT_EQ(step.instructions.size(), 1U);
    EXPECT_EQ(step.instructions[0].kind, policy == NoVerdictPolicy::Continue ? Kind::Continue : Kind::Cancel);
  }
}

TEST(Gate, NotifiesInOrderUntilAcknowledged) {
  World world;
  world.disconnect_gate();
  world.announce();
  world.pause();
  world.resume_at_destination();
  world.connect_gate();
  ASSERT_TRUE(world.run_until([&] { return world.gate().moves().empty(); }, 60s));
  EXPECT_TRUE(world.instructed(Kind::Concluded));
}

// The SOM would take an older fact for news.
TEST(Gate, MovesOfOneSubjectAreNotifiedInTheOrderInWhichTheyBegan) {
  World world({"fw1", "fw2", "fw3"});
  fill(world.driver("fw1"), 3);
  world.disconnect_gate();
  world.announcement.set_notification_id("first");
  world.announce(if_m_t::v1::PHASE_MOVED);
  world.announcement.set_notification_id("and then");
  world.announcement.set_source_place(world.announcement.destination_place());
  world.announcement.set_destination_place("server3");
  world.announcement.mutable_transfers(0)->set_source_host("fw2");
  world.announcement.mutable_transfers(0)->set_destination_host("fw3");
  world.announce(if_m_t::v1::PHASE_MOVED);
  world.restart_gate();
  world.connect_gate();
  ASSERT_TRUE(world.run_until([&] { return world.gate().moves().empty(); }, 60s));
  EXPECT_EQ(world.driver("fw3").table.size(), 3U);
  EXPECT_TRUE(world.driver("fw1").table.empty() && world.driver("fw2").table.empty());
}

TEST(Gate, WhatIsNoticedAfterALaterMoveHasBegunIsRefused) {
  World world;
  world.announce();
  world.settle();
  auto older = world.announcement;
  older.set_notification_id("noticed late");
  older.set_phase(if_m_t::v1::PHASE_MOVED);
  older.set_destination_place(world.announcement.source_place());
  world.gate(gate_event::MoveBegan{older});
  EXPECT_TRUE(world.instructed(Kind::Refused));
  EXPECT_EQ(world.gate().moves().size(), 1U);
}

TEST(Gate, AsksTheHypervisorAfterARestart) {
  World world;
  world.announce();
  ASSERT_TRUE(reaches(world, journal::STANDBY));
  world.instructions.clear();
  world.restart_gate();
  world.settle();
  EXPECT_TRUE(world.instructed(Kind::FindOut));
  EXPECT_TRUE(world.instructed(Kind::MayPause));
}

TEST(Gate, LastResortWithoutAJournal) {
  GateConfig config;
  Gate gate(config, {});
  World world;
  world.announcement.set_phase(if_m_t::v1::PHASE_ANNOUNCED);
  gate.step(Instant{0}, gate_event::MoveBegan{world.announcement});
  gate.step(Instant{0}, gate_event::VmPaused{"n1"});
  EXPECT_TRUE(gate.step(Instant{0} + 1s, gate_event::JournalUnavailable{}).instructions.empty());
  const auto step = gate.step(Instant{0} + 4s, gate_event::JournalUnavailable{});
  ASSERT_EQ(step.instructions.size(), 1U);
  EXPECT_EQ(step.instructions[0].kind, Kind::Cancel);
  EXPECT_TRUE(step.journal.empty());
}

}  // namespace
}  // namespace sami::protocol::test
