#include "soa/config.h"

#include <gmock/gmock.h>

namespace sami::soa {
namespace {

using testing::HasSubstr;

constexpr const char* kGood = R"(name: fw1
domain: dc.example
master: 192.0.2.1:7500
master_name: som1
pki: {ca: /p/ca.pem, certificate: /p/fw1.pem, key: /p/fw1.key}
state: /var/lib/sami/soa
contexts: [{name: default, zones: {blue: 7}}]
external_addresses: [{address: 198.51.100.10, moves_with_subject: true}]
limits: {transfers: 12}
classes: {connection_tracking: {hold_seconds: 60}}
)";

std::string replaced(const std::string& what, const std::string& with) {
  std::string text = kGood;
  const auto at = text.find(what);
  if (at == std::string::npos) throw std::runtime_error(what);
  return text.replace(at, what.size(), with);
}

TEST(SoaConfig, TheExampleIsRead) {
  const auto settings = read_settings(Config::load(SAMI_SOURCE_DIR "/packaging/examples/soa.yaml"));
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_EQ(settings->agent.machine.identity, "spiffe://dc.example/sami/soa/fw1");
  EXPECT_EQ(settings->agent.machine.profile.external_addresses_size(), 2);
}

TEST(SoaConfig, ValuesAndDefaults) {
  const auto settings = read_settings(Config::parse(kGood, "soa.yaml"));
  ASSERT_TRUE(settings) << settings.error().message;
  const auto& profile = settings->agent.machine.profile;
  EXPECT_EQ(profile.host(), "fw1");
  EXPECT_EQ(profile.contexts(0).vn_zone().at("blue"), 7U);
  EXPECT_TRUE(profile.external_addresses(0).moves_with_subject());
  EXPECT_EQ(profile.external_addresses(0).address(), std::string("\xc6\x33\x64\x0a", 4));
  EXPECT_EQ(settings->agent.machine.max_open_transfers, 12U);
  EXPECT_EQ(settings->agent.machine.max_records_per_transfer, 1'000'000U);
  EXPECT_EQ(settings->connection_tracking.hold_seconds, 60U);
  EXPECT_EQ(settings->connection_tracking.contexts.at("default").at("blue"), 7U);
  ASSERT_EQ(settings->connection_tracking.external_addresses.size(), 1U);
  EXPECT_TRUE(settings->connection_tracking.external_addresses[0].moves_with_subject);
  EXPECT_EQ(settings->connection_tracking.capacity, 200'000U);
  EXPECT_EQ(settings->control_socket, "/run/sami/soa.sock");
}

TEST(SoaConfig, ErrorsSayWhereAndWhatWasExpected) {
  struct Case {
    std::string what, with;
    std::vector<std::string> said;
  };
  const Case cases[] = {
      {"name: fw1", "", {"name"}},
      {"name: fw1", "name: \"f/w\"", {"soa.yaml:1", "f/w"}},
      {"transfers: 12", "transfers: many", {"soa.yaml:9", "transfers", "many"}},
      {"transfers: 12", "transfers: 0", {"soa.yaml:9", "transfers"}},
      {"transfers: 12", "transfer: 12", {"soa.yaml:9", "transfer"}},
      {"{name: default, zones: {blue: 7}}", "", {"soa.yaml:7", "contexts", "at least one"}},
      {"zones: {blue: 7}", "zones: {blue: 65536}", {"soa.yaml:7", "65536"}},
      {"zones: {blue: 7}", "zones: {}", {"soa.yaml:7", "virtual network"}},
      {"address: 198.51.100.10", "address: fw1.example", {"soa.yaml:8", "fw1.example"}},
      {"moves_with_subject: true}", "moves_with_subject: maybe}", {"soa.yaml:8", "maybe"}},
      {"moves_with_subject: true}", "moves_with_subject: true}, {address: 198.51.100.10}", {"soa.yaml:8", "again"}},
      {"hold_seconds: 60", "hold_seconds: 1", {"soa.yaml:10", "hold_seconds"}},
      {"connection_tracking:", "conntrack:", {"soa.yaml:10", "conntrack"}},
  };
  for (const auto& [what, with, said] : cases) {
    const auto settings = read_settings(Config::parse(replaced(what, with), "soa.yaml"));
    ASSERT_FALSE(settings) << with;
    EXPECT_EQ(settings.error().kind, ErrorKind::InvalidInput);
    for (const auto& part : said) EXPECT_THAT(settings.error().message, HasSubstr(part)) << with;
  }
}

}  // namespace
}  // namespace sami::soa
