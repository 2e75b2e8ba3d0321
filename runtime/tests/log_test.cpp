#include "runtime/log.h"

#include <gmock/gmock.h>

#include "runtime/journald.h"

namespace sami {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LogTest : public ::testing::Test {
 protected:
  std::vector<std::string> lines_;
  Log log_{LogLevel::Info, [this](LogLevel, const std::string& line) { lines_.push_back(line); }};
};

TEST_F(LogTest, FieldsFollowTheMessage) {
  log_.info("transfer ready",
            {{"migration_id", "m1"}, {"records", 200}, {"essential", true}, {"host", std::string("fw1")}});
  EXPECT_THAT(lines_, ElementsAre("transfer ready migration_id=m1 records=200 essential=true host=fw1"));
}

TEST_F(LogTest, WhatAPeerSentCannotForgeALine) {
  log_.info("refused\nforged", {{"reason", "a b\n<3>all is well \"x\" \x1b[2J"},
                                {"empty", ""},
                                {"c1",
                                 "\xc2\x9b"
                                 "31m"}});
  EXPECT_THAT(lines_, ElementsAre("refused\\nforged reason=\"a b\\n<3>all is well \\\"x\\\" \\x1b[2J\" empty=\"\" "
                                  "c1=\"\\xc2\x9b" "31m\""));
  log_.info("long", {{"value", std::string(5000, 'x')}});
  EXPECT_LT(lines_[1].size(), 2100U);
}

TEST_F(LogTest, LevelsFilter) {
  log_.debug("no");
  log_.warning("yes");
  log_.set_level(LogLevel::Error);
  log_.with({{"a", 1}}).warning("no");
  log_.error("yes");
  EXPECT_EQ(lines_.size(), 2U);
  EXPECT_EQ(*parse_log_level("warning"), LogLevel::Warning);
  EXPECT_THAT(parse_log_level("loud").error().message, HasSubstr("trace, debug, info, warning, error"));
}

TEST_F(LogTest, ContextGoesFirst) {
  log_.with({{"host", "fw1"}}).with({{"epoch", 7}}).info("hello", {{"n", 1}});
  EXPECT_THAT(lines_, ElementsAre("hello host=fw1 epoch=7 n=1"));
}

TEST_F(LogTest, LimitLeavesOutAndCounts) {
  RateLimit limit(2, std::chrono::seconds(10));
  std::uint64_t suppressed = 0;
  const Instant start{1'000'000'000};
  EXPECT_TRUE(limit.pass(start, suppressed));
  EXPECT_TRUE(limit.pass(start, suppressed));
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(limit.pass(start + std::chrono::seconds(1), suppressed));
  EXPECT_TRUE(limit.pass(start + std::chrono::seconds(10), suppressed));
  EXPECT_EQ(suppressed, 5U);
  RateLimit once(1, std::chrono::hours(1));
  for (int i = 0; i < 5; ++i) log_.limited(once, LogLevel::Info, "garbage");
  EXPECT_EQ(lines_.size(), 1U);
}

TEST(JournaldTest, FieldsCanBeSearched) {
  EXPECT_THAT(journald::entries(LogLevel::Warning, "hello", {{"migration_id", "m1"}, {"a-b", "x y"}, {"_x", 1}}),
              ElementsAre("MESSAGE=hello", "PRIORITY=4", "MIGRATION_ID=m1", "A_B=x y", "F_X=1"));
}

}  // namespace
}  // namespace sami
