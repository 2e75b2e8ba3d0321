#include "tde/qemu/qmp_message.h"

#include <gmock/gmock.h>

namespace sami::tde::qmp {
namespace {

template <typename T>
T parsed(const std::string& line) {
  const auto message = parse(line);
  if (!message) throw std::runtime_error(message.error().message);
  return std::get<T>(*message);
}

TEST(QmpMessage, GreetingEventAndAnswers) {
  EXPECT_EQ(parsed<Greeting>(R"({"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"D"},
                                "capabilities":["oob"]}})")
                .version,
            "7.2.22");
  const auto event = parsed<Event>(R"({"timestamp":{"seconds":1700000000,"microseconds":42},"event":"MIGRATION",
                                     "data":{"status":"setup"}})");
  EXPECT_EQ(event.name, "MIGRATION");
  EXPECT_EQ(event.data.text("status"), "setup");
  EXPECT_EQ(event.microseconds, 1'700'000'000'000'042);
  const auto answer = parsed<Answer>(R"({"return":{"running":true,"ram":{"left":7,"share":0.5},"list":[1]},"id":9})");
  EXPECT_EQ(answer.id, 9u);
  EXPECT_EQ(answer.value.flag("running"), true);
  EXPECT_EQ(answer.value.number("ram.left"), 7);
  EXPECT_EQ(answer.value.text("running"), std::nullopt);
  EXPECT_EQ(answer.value.size(), 2u);
  const auto error = parsed<Answer>(R"({"error":{"class":"CommandNotFound","desc":"no such"},"id":3})");
  EXPECT_EQ(error.error_class, "CommandNotFound");
  EXPECT_EQ(error.error, "no such");
}

TEST(QmpMessage, MalformedLinesAreErrorsThatSayWhatWasExpected) {
  for (const std::string line :
       {"", "x", "[]", "7", "{}", R"({"event":5})", R"({"id":1})", "{\"return\":{}", "{\"a\":\"\xff\"}"}) {
    const auto message = parse(line);
    ASSERT_FALSE(message) << line;
    EXPECT_EQ(message.error().kind, ErrorKind::Corrupt);
    EXPECT_THAT(message.error().message, ::testing::HasSubstr("expected")) << line;
  }
  EXPECT_FALSE(parse(std::string(kMaximumLine + 1, ' ')));
  // Odd, but no reason to give up.
  EXPECT_EQ(parsed<Answer>(R"({"return":[],"id":"text"})").id, std::nullopt);
  EXPECT_EQ(parsed<Event>(R"({"event":"STOP","timestamp":{"seconds":-1,"microseconds":-1}})").microseconds, 0);
  EXPECT_EQ(parsed<Event>(R"({"event":"STOP","timestamp":{"seconds":9223372036854775807}})").microseconds, 0);
  const std::string deep = "{\"return\":" + std::string(5000, '[') + std::string(5000, ']') + "}";
  EXPECT_EQ(parsed<Answer>(deep).value.size(), 0u);
}

TEST(QmpMessage, CommandsAreOneLineEach) {
  EXPECT_EQ(encode(7, query_status()), "{\"execute\":\"query-status\",\"id\":7}\n");
  EXPECT_EQ(encode(8, set_bandwidth(5)),
            "{\"execute\":\"migrate-set-parameters\",\"id\":8,\"arguments\":{\"max-bandwidth\":5}}\n");
  EXPECT_EQ(encode(9, set_capabilities({"events"}, {"zlib"})),
            "{\"execute\":\"migrate-set-capabilities\",\"id\":9,\"arguments\":{\"capabilities\":"
            "[{\"capability\":\"events\",\"state\":true},{\"capability\":\"zlib\",\"state\":false}]}}\n");
  EXPECT_EQ(encode(1, migrate_continue()),
            "{\"execute\":\"migrate-continue\",\"id\":1,\"arguments\":{\"state\":\"pre-switchover\"}}\n");
}

}  // namespace
}  // namespace sami::tde::qmp
