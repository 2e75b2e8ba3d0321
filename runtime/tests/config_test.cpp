#include "runtime/config.h"

#include <gmock/gmock.h>

#include "runtime/file.h"
#include "runtime/tests/folder.h"

namespace sami {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ConfigTest, ReadsEveryType) {
  auto config = Config::parse(R"(
name: som1
listen: "[2001:db8::1]:7500"
state: /var/lib/sami
lease_ms: 5000
limits: {migrations: 10}
verbose: true
no_verdict: continue
tdes:
  - {name: tde1, subjects: ["*"]}
  - {name: tde2, subjects: [vm1, vm2]}
zones: {blue: 1, red: 2}
address: 192.0.2.1
mac: "02:00:00:00:01:10"
within: [10.0.0.0/8, 192.0.2.7, "2001:db8::/32"]
)", "som.yaml");
  Section& root = config.root();
  EXPECT_EQ(root.text("name"), "som1");
  EXPECT_EQ(root.endpoint("listen"), "[2001:db8::1]:7500");
  EXPECT_EQ(root.path("state"), "/var/lib/sami");
  EXPECT_EQ(root.milliseconds("lease_ms", {1, 10000}), std::chrono::seconds(5));
  EXPECT_EQ(root.section("limits").integer("migrations", {1, 100}, 50), 10);
  EXPECT_EQ(root.section("limits").integer("transfers", {1, 100}, 64), 64);
  EXPECT_EQ(root.section("deadlines").milliseconds("release_ms", {}, 7), std::chrono::milliseconds(7));
  EXPECT_TRUE(root.boolean("verbose", false));
  EXPECT_EQ(root.choice<int>("no_verdict", {{"cancel", 1}, {"continue", 2}}, 1), 2);
  const auto tdes = root.sections("tdes");
  ASSERT_EQ(tdes.size(), 2U);
  EXPECT_EQ(tdes[1]->text("name"), "tde2");
  EXPECT_THAT(tdes[1]->texts("subjects"), ElementsAre("vm1", "vm2"));
  EXPECT_EQ(tdes[0]->text("name"), "tde1");
  EXPECT_THAT(tdes[0]->texts("subjects"), ElementsAre("*"));
  Section& zones = root.section("zones");
  EXPECT_THAT(zones.keys(), ElementsAre("blue", "red"));
  EXPECT_EQ(zones.integer("blue", {}) + zones.integer("red", {}), 3);
  EXPECT_EQ(root.address("address"), std::string("\xc0\x00\x02\x01", 4));
  EXPECT_EQ(root.mac("mac"), std::string("\x02\x00\x00\x00\x01\x10", 6));
  const auto within = root.prefixes("within");
  ASSERT_EQ(within.size(), 3U);
  EXPECT_EQ(within[0].length, 8U);
  EXPECT_EQ(within[1].length, 32U);
  EXPECT_EQ(within[2].address.size(), 16U);
  EXPECT_THAT(root.addresses("none"), IsEmpty());
  EXPECT_EQ(root.text("log", "info"), "info");
  EXPECT_THAT(config.errors(), IsEmpty());
}

TEST(ConfigTest, SaysWhereWhatAndWhatWasExpectedForEveryError) {
  auto config = Config::parse(R"(name: [a]
listen: 7500
lease_ms: soon
limits:
  migrations: 0
  migrations: 1
no_verdict: maybe
tdes: [{subjects: [[x]]}]
state: relative
unknwon: 1
mac: "02:00"
within: [10.0.0.1/8]
)", "som.yaml");
  Section& root = config.root();
  root.text("name");
  root.endpoint("listen");
  root.integer("lease_ms", {1, 10});
  root.section("limits").integer("migrations", {1}, 5);
  root.choice<int>("no_verdict", {{"cancel", 1}, {"continue", 2}}, 1);
  for (Section* tde : root.sections("tdes")) {
    tde->text("name");
    tde->texts("subjects");
  }
  root.path("state");
  root.mac("mac");
  root.prefixes("within");
  root.text("domain");
  root.reject("name", "\"x\"", "the name in the certificate");
  EXPECT_THAT(
      config.errors(),
      ElementsAre("som.yaml: domain: missing, expected a text",
                  "som.yaml:1:7: name: found a list, expected a text",
                  "som.yaml:1:7: name: found \"x\", expected the name in the certificate",
                  HasSubstr("som.yaml:2:9: listen: found \"7500\", expected host:port"),
                  "som.yaml:3:11: lease_ms: found \"soon\", expected an integer from 1 to 10",
                  "som.yaml:5:15: limits.migrations: found \"0\", expected an integer of at least 1",
                  "som.yaml:6:3: limits.migrations: found a second time, expected once",
                  "som.yaml:7:13: no_verdict: found \"maybe\", expected one of: cancel, continue",
                  "som.yaml:8:8: tdes[0].name: missing, expected a text",
                  HasSubstr("som.yaml:8:20: tdes[0].subjects: found a list, expected a list of texts"),
                  "som.yaml:9:8: state: found \"relative\", expected an absolute path",
                  HasSubstr("som.yaml:10:1: unknwon: unknown key, expected one of: domain, "),
                  HasSubstr("som.yaml:11:6: mac: found \"02:00\", expected a MAC address"),
                  HasSubstr("som.yaml:12:10: within: found \"10.0.0.1/8\", expected a list of prefixes")));
}

TEST(ConfigTest, WhatCannotBeReadIsTheOnlyError) {
  for (const char* text : {"a: [", "- a", "text", "a: b: c", "\tx: 1", "a: &x *x"}) {
    auto config = Config::parse(text, "som.yaml");
    config.root().text("name");
    ASSERT_EQ(config.errors().size(), 1U) << text;
    EXPECT_THAT(config.errors()[0], HasSubstr("som.yaml:")) << text;
  }
  auto missing = Config::load("/nowhere/som.yaml");
  missing.root().text("name");
  EXPECT_THAT(missing.errors(),
              ElementsAre("/nowhere/som.yaml: cannot open /nowhere/som.yaml: No such file or directory"));
}

using ConfigFolderTest = sami::testing::FolderTest;

TEST_F(ConfigFolderTest, LaterFilesReplaceTopLevelKeys) {
  ASSERT_TRUE(make_private_folder(folder_ + "/som/conf.d"));
  ASSERT_TRUE(write_file(folder_ + "/som.yaml", "name: a\nlimits: {x: 1, y: 2}\nlog: info\n", 0644));
  ASSERT_TRUE(write_file(folder_ + "/som/conf.d/20.yaml", "name: c\n", 0644));
  ASSERT_TRUE(write_file(folder_ + "/som/conf.d/10.yaml", "name: b\nlimits: {x: 5, z: 1}\n", 0644));
  ASSERT_TRUE(write_file(folder_ + "/som/conf.d/ignored.txt", "name: d\n", 0644));
  auto config = Config::load(folder_ + "/som.yaml");
  EXPECT_EQ(config.root().text("name"), "c");
  EXPECT_EQ(config.root().section("limits").integer("x", {}), 5);
  EXPECT_EQ(config.root().section("limits").integer("y", {}, 9), 9);
  EXPECT_EQ(config.root().text("log"), "info");
  EXPECT_THAT(config.errors(),
              ElementsAre(folder_ + "/som/conf.d/10.yaml:2:16: limits.z: unknown key, expected one of: x, y"));
}

TEST(ConfigValueTest, AddressesAndEndpoints) {
  for (const char* text : {"", "1.2.3", "1.2.3.4.5", "::g", "1.2.3.4/8", "01.2.3.4"})
    EXPECT_FALSE(parse_address(text)) << text;
  for (const char* text : {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.1.0.0/8", "::/129"})
    EXPECT_FALSE(parse_prefix(text)) << text;
  EXPECT_TRUE(parse_prefix("0.0.0.0/0"));
  for (const char* text : {"", "02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:0g", "2:0:0:0:0:1:2:3:4"})
    EXPECT_FALSE(parse_mac(text)) << text;
  for (const char* text : {"som.example:7500", "192.0.2.1:1", "[::1]:65535"})
    EXPECT_TRUE(check_endpoint(text, false)) << text;
  for (const char* text : {"som", ":7500", "som:", "som:0", "som:65536", "::1:7500", "[1.2.3.4]:1", "a b:1", "-a:1"})
    EXPECT_FALSE(check_endpoint(text, false)) << text;
  EXPECT_TRUE(check_endpoint("127.0.0.1:0", true));
}

}  // namespace
}  // namespace sami
