// The monitor machine as a table: what it is fed, and what it makes of it.
#include "tde/qemu/monitor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

namespace sami::tde::qemu {
namespace {

namespace event = monitor_event;
using Instruction = protocol::HypervisorInstruction::Kind;
using protocol::NoVerdictPolicy;

std::string shown(const MonitorCommand& command) {
  using Kind = MonitorCommand::Kind;
  switch (command.kind) {
    case Kind::Connect: return "connect " + command.server;
    case Kind::Prepare: return "prepare " + command.server;
    case Kind::ReadStatus: return "status? " + command.server;
    case Kind::ReadMigration: return "migration? " + command.server;
    case Kind::ReadBandwidth: return "bandwidth? " + command.server;
    case Kind::SetBandwidth: return fmt::format("bandwidth {} {}", command.server, command.value);
    case Kind::Continue: return "continue " + command.server;
    case Kind::Cancel: return "cancel " + command.server;
  }
  return "?";
}

std::string shown(const MonitorReport& report) {
  using Kind = MonitorReport::Kind;
  switch (report.kind) {
    case Kind::Announced: return "ANNOUNCED " + report.destination;
    case Kind::Paused: return "PAUSED";
    case Kind::AtDestination: return "RESUMED " + report.destination;
    case Kind::AtSource: return "CANCELLED";
    case Kind::Moved: return "MOVED " + report.destination;
  }
  return "?";
}

struct Row {
  MonitorEvent fed;
  std::string made;  // commands and reports, in order; parted by ", "
  int after_ms = 1;
};

struct Case {
  std::string name;
  std::vector<Row> rows;
  NoVerdictPolicy policy = NoVerdictPolicy::Cancel;
};

const std::string kHold = "bandwidth? a, bandwidth a 1000";
const std::string kFull = "bandwidth a 70000";
const MonitorEvent kToldMayPause = event::Told{Instruction::MayPause};
const MonitorEvent kToldContinue = event::Told{Instruction::Continue};
const MonitorEvent kToldCancel = event::Told{Instruction::Cancel};

std::vector<Row> operator+(std::vector<Row> rows, const std::vector<Row>& more) {
  rows.insert(rows.end(), more.begin(), more.end());
  return rows;
}

// A VM that runs at a, with a QEMU at b that waits for it; c has none.
std::vector<Row> ready() {
  return {{event::Connected{"a"}, "prepare a, status? a, migration? a"},
          {event::StatusRead{"a", RunState::Running}, ""},
          {event::MigrationRead{"a", Migration::None}, ""},
          {event::Disconnected{"c"}, ""},
          {event::Connected{"b"}, "prepare b, status? b, migration? b"},
          {event::StatusRead{"b", RunState::InMigrate}, ""},
          {event::MigrationRead{"b", Migration::Setup}, ""}};
}
std::vector<Row> announced() {
  return ready() + std::vector<Row>{{event::MigrationChanged{"a", Migration::Setup}, kHold + ", ANNOUNCED b"},
                                    {event::BandwidthRead{"a", 70000}, ""},
                                    {event::Announced{}, ""},
                                    {event::MigrationChanged{"b", Migration::Active}, ""},
                                    {event::MigrationChanged{"a", Migration::Active}, ""}};
}
std::vector<Row> paused() {
  return announced() + std::vector<Row>{{kToldMayPause, kFull},
                                        {event::Stopped{"a"}, ""},
                                        {event::MigrationChanged{"a", Migration::PreSwitchover}, "PAUSED"}};
}
std::vector<Row> told_to_go_on() { return paused() + std::vector<Row>{{kToldContinue, "continue a"}}; }

std::vector<Case> when_all_goes_as_told() {
  const MonitorEvent tick = event::Tick{};
  return {
      {"goes_on", told_to_go_on() + std::vector<Row>{{event::MigrationChanged{"a", Migration::Device}, ""},
                                                     {event::MigrationChanged{"a", Migration::Completed}, ""},
                                                     {event::Resumed{"b"}, "RESUMED b"},
                                                     {event::MigrationChanged{"b", Migration::Completed}, ""}}},
      {"destination_stays_stopped_as_the_vm_was",
       told_to_go_on() + std::vector<Row>{{event::MigrationChanged{"b", Migration::Completed}, "RESUMED b"}}},
      {"goes_back_when_told",
       paused() + std::vector<Row>{{kToldCancel, "cancel a"},
                                   {event::MigrationChanged{"a", Migration::Cancelling}, ""},
                                   {event::MigrationChanged{"a", Migration::Cancelled}, "CANCELLED"},
                                   {event::Resumed{"a"}, ""}}},
      {"goes_back_while_it_runs",
       announced() + std::vector<Row>{{kToldCancel, kFull + ", cancel a"},
                                      {event::MigrationChanged{"a", Migration::Cancelled}, "CANCELLED"}}},
      {"operator_cancels_while_copying",
       announced() + std::vector<Row>{{event::MigrationChanged{"a", Migration::Cancelling}, ""},
                                      {event::MigrationChanged{"a", Migration::Cancelled}, kFull + ", CANCELLED"}}},
      {"operator_cancels_while_paused",
       paused() + std::vector<Row>{{event::MigrationChanged{"a", Migration::Cancelling}, ""},
                                   {event::Resumed{"a"}, ""},
                                   {event::MigrationChanged{"a", Migration::Cancelled}, "CANCELLED"}}},
      {"operator_continues_by_himself",
       paused() +
           std::vector<Row>{{event::MigrationChanged{"a", Migration::Device}, ""}, {event::Resumed{"b"}, "RESUMED b"}}},
  };
}

std::vector<Case> when_a_qemu_dies() {
  return {
      {"destination_dies_while_copying",
       announced() + std::vector<Row>{{event::Disconnected{"b"}, kFull + ", cancel a"},
                                      {event::MigrationChanged{"a", Migration::Cancelled}, "CANCELLED"}}},
      {"destination_dies_while_paused",
       paused() + std::vector<Row>{{event::Disconnected{"b"}, "cancel a"},
                                   {event::MigrationChanged{"a", Migration::Cancelled}, "CANCELLED"}}},
      {"destination_dies_after_go",
       told_to_go_on() + std::vector<Row>{{event::Disconnected{"b"}, ""},
                                          {event::MigrationChanged{"a", Migration::Failed}, "CANCELLED"},
                                          {event::Resumed{"a"}, ""}}},
      {"both_die_after_the_switchover_and_nobody_knows",
       told_to_go_on() + std::vector<Row>{{event::MigrationChanged{"a", Migration::Completed}, ""},
                                          {event::Disconnected{"b"}, ""},
                                          {event::Disconnected{"a"}, ""},
                                          {event::Told{Instruction::FindOut}, ""}}},
      {"source_dies_and_is_started_again",
       announced() + std::vector<Row>{{event::Disconnected{"a"}, ""},
                                      {event::Connected{"a"}, "prepare a, status? a, migration? a"},
                                      {event::StatusRead{"a", RunState::Running}, ""},
                                      {event::MigrationRead{"a", Migration::None}, kFull + ", CANCELLED"}}},
  };
}

std::vector<Case> when_the_gate_does_not_say() {
  const MonitorEvent tick = event::Tick{};
  const std::string both = "status? a, migration? a, status? b, migration? b";
  return {
      {"nothing_is_said_in_time_cancel",
       paused() + std::vector<Row>{{tick, both + "", 100}, {tick, both, 200}, {tick, "cancel a, " + both, 800}}},
      {"nothing_is_said_in_time_continue", paused() + std::vector<Row>{{tick, "continue a, " + both, 1000}},
       NoVerdictPolicy::Continue},
      {"announcement_is_refused_by_the_master",
       announced() + std::vector<Row>{{event::Told{Instruction::Refused}, kFull},
                                      {event::MigrationChanged{"a", Migration::PreSwitchover}, "continue a"},
                                      {event::Resumed{"b"}, "RESUMED b"}},
       NoVerdictPolicy::Continue},
      {"announcement_is_refused_and_the_policy_cancels",
       announced() + std::vector<Row>{{event::Told{Instruction::Refused}, kFull + ", cancel a"},
                                      {event::MigrationChanged{"a", Migration::Cancelled}, ""}}},
      {"nothing_is_to_be_moved",
       ready() +
           std::vector<Row>{{event::MigrationChanged{"a", Migration::Setup}, kHold + ", ANNOUNCED b"},
                            {event::NotAnnounced{event::NotAnnounced::Why::NothingToMove, ""}, "bandwidth a 134217728"},
                            {event::MigrationChanged{"a", Migration::PreSwitchover}, "continue a"}}},
      {"journal_fails_and_it_is_announced_later",
       ready() + std::vector<Row>{{event::MigrationChanged{"a", Migration::Setup}, kHold + ", ANNOUNCED b"},
                                  {event::NotAnnounced{event::NotAnnounced::Why::NotNow, ""}, ""},
                                  {tick, both + ", ANNOUNCED b", 500},
                                  {event::Announced{}, ""},
                                  {event::MigrationChanged{"a", Migration::PreSwitchover}, "PAUSED"}}},
      {"paused_before_it_may",
       announced() + std::vector<Row>{{event::MigrationChanged{"a", Migration::PreSwitchover}, "PAUSED"},
                                      {kToldContinue, kFull + ", continue a"}}},
      {"continue_is_refused_and_said_again",
       told_to_go_on() + std::vector<Row>{{event::Refused{"a", "migrate-continue", "busy"}, ""},
                                          {tick, both, 300},
                                          {event::MigrationRead{"a", Migration::PreSwitchover}, "continue a"}}},
      {"connection_to_the_source_is_lost_at_the_switchover",
       paused() + std::vector<Row>{{event::Connected{"a"}, "prepare a, status? a, migration? a"},
                                   {kToldContinue, ""},
                                   {event::StatusRead{"a", RunState::Stopped}, ""},
                                   {event::MigrationRead{"a", Migration::PreSwitchover}, "continue a"}}},
      {"asked_where_it_is", paused() + std::vector<Row>{{event::Told{Instruction::FindOut}, "PAUSED"}}},
  };
}

std::vector<Case> when_the_destination_is_to_be_found() {
  const MonitorEvent tick = event::Tick{};
  return {
      {"two_wait_and_the_one_that_copies_is_meant",
       {ready() +
        std::vector<Row>{{event::Connected{"c"}, "prepare c, status? c, migration? c"},
                         {event::StatusRead{"c", RunState::InMigrate}, ""},
                         {event::MigrationRead{"c", Migration::Setup}, ""},
                         {event::MigrationChanged{"a", Migration::Setup}, "migration? b, migration? c, " + kHold},
                         {event::MigrationChanged{"c", Migration::Active}, "ANNOUNCED c", 100}}}},
      {"destination_is_only_just_started",
       {{event::Connected{"a"}, "prepare a, status? a, migration? a"},
        {event::StatusRead{"a", RunState::Running}, ""},
        {event::Disconnected{"b"}, ""},
        {event::Disconnected{"c"}, ""},
        {event::MigrationChanged{"a", Migration::Setup}, "connect b, connect c, " + kHold},
        {event::Connected{"b"}, "prepare b, status? b, migration? b"},
        {event::StatusRead{"b", RunState::InMigrate}, "ANNOUNCED b", 100}}},
      // An answer that asks again would never end.
      {"two_wait_and_are_asked_every_20_ms",
       {ready() +
        std::vector<Row>{{event::Connected{"c"}, "prepare c, status? c, migration? c"},
                         {event::StatusRead{"c", RunState::InMigrate}, ""},
                         {event::MigrationRead{"c", Migration::Setup}, ""},
                         {event::MigrationChanged{"a", Migration::Setup}, "migration? b, migration? c, " + kHold},
                         {event::MigrationRead{"b", Migration::Setup}, ""},
                         {event::MigrationRead{"c", Migration::Setup}, ""},
                         {tick, "", 19},
                         {tick, "migration? b, migration? c", 1},
                         {event::MigrationRead{"b", Migration::Setup}, ""}}}},
      {"destination_is_nowhere",
       {{event::Connected{"a"}, "prepare a, status? a, migration? a"},
        {event::StatusRead{"a", RunState::Running}, ""},
        {event::Disconnected{"b"}, ""},
        {event::Disconnected{"c"}, ""},
        {event::MigrationChanged{"a", Migration::Active}, "connect b, connect c, " + kHold},
        {event::MigrationChanged{"a", Migration::PreSwitchover}, ""},
        {tick, "connect b, connect c, bandwidth a 134217728, cancel a, status? a, migration? a", 2000}}},
  };
}

std::vector<Case> when_it_began_before_us() {
  const MonitorEvent tick = event::Tick{};
  return {
      {"found_under_way_at_the_start",
       {{event::Connected{"b"}, "prepare b, status? b, migration? b"},
        {event::StatusRead{"b", RunState::InMigrate}, ""},
        {event::MigrationRead{"b", Migration::Active}, ""},
        {event::Connected{"a"}, "prepare a, status? a, migration? a"},
        {event::Refused{"a", "migrate-set-capabilities", "There's a migration process in progress"}, ""},
        {event::StatusRead{"a", RunState::Running}, ""},
        {event::MigrationRead{"a", Migration::Active}, kHold + ", ANNOUNCED b"}}},
      {"adopted_while_paused",
       {{event::Adopted{"a", "b"}, ""},
        {kToldMayPause, kFull.substr(0, 12) + "134217728"},
        {kToldContinue, ""},
        {event::Connected{"a"}, "prepare a, status? a, migration? a"},
        {event::StatusRead{"a", RunState::Stopped}, ""},
        {event::MigrationRead{"a", Migration::PreSwitchover}, "continue a, PAUSED"}}},
      {"adopted_after_it_arrived",
       {{event::Adopted{"a", "b"}, ""},
        {event::Disconnected{"a"}, ""},
        {event::Connected{"b"}, "prepare b, status? b, migration? b"},
        {event::StatusRead{"b", RunState::Running}, "RESUMED b"}}},
      {"adopted_and_not_begun_is_no_outcome",
       {{event::Adopted{"a", "b"}, ""},
        {event::Connected{"a"}, "prepare a, status? a, migration? a"},
        {event::StatusRead{"a", RunState::Running}, ""},
        {event::MigrationRead{"a", Migration::None}, ""}}},
      {"moved_while_nobody_looked",
       {{event::Connected{"b"}, "prepare b, status? b, migration? b"},
        {event::StatusRead{"b", RunState::Running}, ""},
        {event::Disconnected{"a"}, ""},
        {event::Disconnected{"c"}, "MOVED b"},
        {tick, ""},
        {tick, "MOVED b", 6000}}},
      {"two_that_run_are_no_move",
       {{event::Disconnected{"c"}, ""},
        {event::Connected{"a"}, "prepare a, status? a, migration? a"},
        {event::StatusRead{"a", RunState::Running}, ""},
        {event::Connected{"b"}, "prepare b, status? b, migration? b"},
        {event::StatusRead{"b", RunState::Running}, ""}}},
      {
          "moves_back_afterwards",
          told_to_go_on() + std::vector<Row>{{event::Resumed{"b"}, "RESUMED b"},
                                             {event::MigrationChanged{"b", Migration::Completed}, ""},
                                             {event::Connected{"a"}, "prepare a, status? a, migration? a"},
                                             {event::StatusRead{"a", RunState::InMigrate}, ""},
                                             {event::MigrationRead{"a", Migration::Setup}, ""},
                                             {event::MigrationChanged{"b", Migration::Setup},
                                              "bandwidth? b, bandwidth b 1000, ANNOUNCED a"}},
      },
  };
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& some : {when_all_goes_as_told(), when_a_qemu_dies(), when_the_gate_does_not_say(),
                           when_the_destination_is_to_be_found(), when_it_began_before_us()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void PrintTo(const Case& tested, std::ostream* out) { *out << tested.name; }

class MonitorTable : public ::testing::TestWithParam<Case> {};

TEST_P(MonitorTable, MakesOfIt) {
  MonitorConfig config;
  config.subject_id = "vm1";
  config.servers = {"a", "b", "c"};
  config.precopy_bandwidth = 1000;
  config.paused_deadline = std::chrono::milliseconds(1000);
  config.poll_interval = std::chrono::milliseconds(50);
  config.no_verdict = GetParam().policy;
  Monitor monitor(config);
  Instant now{0};
  std::string place = "a";
  int number = 0;
  for (const auto& row : GetParam().rows) {
    const bool polls = std::holds_alternative<event::Tick>(row.fed);
    now = now + std::chrono::milliseconds(polls ? row.after_ms : 0);
    const auto step = monitor.step(now, place, row.fed);
    std::vector<std::string> made;
    for (const auto& command : step.commands) made.push_back(shown(command));
    for (const auto& report : step.reports) made.push_back(shown(report));
    for (const auto& report : step.reports) {
      if (report.kind == MonitorReport::Kind::AtDestination) place = report.destination;
    }
    EXPECT_EQ(fmt::format("{}", fmt::join(made, ", ")), row.made)
        << "row " << number << "; " << fmt::format("{}", fmt::join(step.notes, "; "));
    ++number;
    EXPECT_GE(monitor.next_deadline(), Instant{0});
  }
}

INSTANTIATE_TEST_SUITE_P(Everything, MonitorTable, ::testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

TEST(MonitorWords, StatusesOfQemu) {
  EXPECT_EQ(run_state("finish-migrate"), RunState::Stopped);
  EXPECT_EQ(run_state(""), RunState::Unknown);
  EXPECT_EQ(migration("pre-switchover"), Migration::PreSwitchover);
  EXPECT_EQ(migration("postcopy-active"), Migration::Active);
  EXPECT_EQ(migration(""), Migration::None);
}

}  // namespace
}  // namespace sami::tde::qemu
