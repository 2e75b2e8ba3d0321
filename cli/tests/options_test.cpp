#include "cli/options.h"

#include <gtest/gtest.h>

namespace sami::cli {
namespace {

std::variant<Options, Stop> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "sami");
  return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(Options, A_verb_fills_in_its_command) {
  const auto parsed = parse({"migration", "start", "vm1", "server2", "--wait", "--force", "-o", "json"});
  ASSERT_TRUE(std::holds_alternative<Options>(parsed));
  const auto& options = std::get<Options>(parsed);
  const auto& start = std::get<command::MigrationStart>(options.command);
  EXPECT_EQ(start.vm, "vm1");
  EXPECT_EQ(start.server, "server2");
  EXPECT_TRUE(start.wait && start.force && !start.dry_run);
  EXPECT_TRUE(options.connection.json);
}

TEST(Options, Resolve_takes_a_place) {
  const auto parsed = parse({"migration", "resolve", "m-1", "destination"});
  ASSERT_TRUE(std::holds_alternative<Options>(parsed));
  EXPECT_TRUE(std::get<command::MigrationResolve>(std::get<Options>(parsed).command).at_destination);
}

TEST(Options, A_wrong_line_says_what_was_expected) {
  for (const auto& line : std::vector<std::vector<const char*>>{{},
                                                                {"migration"},
                                                                {"migration", "show"},
                                                                {"migration", "resolve", "m-1", "elsewhere"},
                                                                {"host", "list", "-o", "xml"},
                                                                {"nonsense"},
                                                                {"audit", "--from", "yesterday"},
                                                                {"--certificate", "x", "host", "list"}}) {
    const auto parsed = parse(line);
    ASSERT_TRUE(std::holds_alternative<Stop>(parsed));
    EXPECT_EQ(std::get<Stop>(parsed).code, ExitCode::Usage);
    EXPECT_FALSE(std::get<Stop>(parsed).output.empty());
  }
}

TEST(Options, Help_is_not_an_error) {
  const auto parsed = parse({"--help"});
  ASSERT_TRUE(std::holds_alternative<Stop>(parsed));
  EXPECT_EQ(std::get<Stop>(parsed).code, ExitCode::Done);
  EXPECT_NE(std::get<Stop>(parsed).output.find("Exit codes"), std::string::npos);
}

TEST(Options, Times_are_absolute_or_ago) {
  const std::int64_t now = 1'795'251'600'000'000;  // 2026-11-21T09:00:00Z
  std::int64_t time = 0;
  ASSERT_TRUE(parse_time("2026-11-21T03:12", now, time));
  EXPECT_EQ(time, 1'795'230'720'000'000);
  ASSERT_TRUE(parse_time("03:12", now, time));
  EXPECT_EQ(time, 1'795'230'720'000'000);
  ASSERT_TRUE(parse_time("2h", now, time));
  EXPECT_EQ(time, now - 7'200'000'000);
  EXPECT_FALSE(parse_time("25:99", now, time));
  EXPECT_FALSE(parse_time("2 fortnights", now, time));
}

}  // namespace
}  // namespace sami::cli
