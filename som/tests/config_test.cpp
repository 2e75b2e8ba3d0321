#include "som/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "interfaces/transport/pki.h"
#include "runtime/file.h"
#include "som/tests/master.h"

namespace sami::som {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string kSmallest =
    "name: som1\n"
    "domain: dc.example\n"
    "listen: 192.0.2.1:7500\n"
    "pki: {ca: /p/ca.pem, certificate: /p/som1.pem, key: /p/som1.key}\n"
    "state: /var/lib/sami/som\n"
    "classes: [{name: connection_tracking}]\n"
    "tdes: [{name: tde1, subjects: [\"*\"]}]\n";

std::vector<std::string> errors_of(const std::string& text) {
  Config config = Config::parse(text, "som.yaml");
  read_settings(config);
  return config.errors();
}

TEST(SomConfig, TheExampleIsComplete) {
  const auto text = read_file(SAMI_SOURCE_FOLDER "/packaging/examples/som.yaml", 1 << 20);
  ASSERT_TRUE(text);
  Config config = Config::parse(*text, "som.yaml");
  const Settings example = read_settings(config);
  EXPECT_THAT(config.errors(), IsEmpty());
  Config smallest = Config::parse(kSmallest, "som.yaml");
  const Settings defaults = read_settings(smallest);
  EXPECT_THAT(smallest.errors(), IsEmpty());
  EXPECT_THAT(restart_needed(example, defaults), testing::ElementsAre("pki")) << "the example shows the defaults";
  EXPECT_EQ(example.agents, defaults.agents);
  EXPECT_EQ(example.machine.identity, "spiffe://dc.example/sami/som/som1");
  EXPECT_TRUE(defaults.machine.classes.at(0).essential());
}

struct Wrong {
  const char* replace;
  const char* with;
  const char* error;      // file, line, and what it is about
};

TEST(SomConfig, EveryErrorSaysWhereAndWhat) {
  const Wrong rows[] = {
      {"name: som1", "nmae: som1", "som.yaml:1:"},
      {"name: som1", "name: som/1", "som.yaml:1:"},
      {"dc.example", "DC.example", "som.yaml:2:"},
      {"192.0.2.1:7500", "192.0.2.1", "som.yaml:3:"},
      {"/p/som1.key", "som1.key", "som.yaml:4:"},
      {"state: /var", "state: var", "som.yaml:5:"},
      {"{name: connection_tracking}", "{name: connection_tracking, essential: maybe}", "som.yaml:6:"},
      {"{name: connection_tracking}", "{name: a}, {name: a}", "each class once"},
      {"[{name: connection_tracking}]", "[]", "classes"},
      {"subjects: [\"*\"]", "subjects: []", "som.yaml:7:"},
      {"tdes: [", "tdes: [{name: tde1, subjects: [a]}, ", "each TDE once"},
      {"tdes:", "deadlines: {switch_ms: 1}\ntdes:", "som.yaml:7:"},
      {"tdes:", "deadlines: {swich_ms: 1000}\ntdes:", "swich_ms"},
      {"tdes:", "limits: {transfers: 65}\ntdes:", "transfers"},
      {"tdes:", "log: {level: loud}\ntdes:", "loud"},
  };
  for (const auto& row : rows) {
    std::string text = kSmallest;
    const auto at = text.find(row.replace);
    ASSERT_NE(at, std::string::npos) << row.replace;
    text.replace(at, std::string(row.replace).size(), row.with);
    EXPECT_THAT(errors_of(text), Contains(HasSubstr(row.error))) << row.with;
  }
}

struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "sami-som-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

TEST(SomConfig, CredentialsAreChecked) {
  Folder folder;
  const std::string pki = folder.path + "/pki";
  ASSERT_TRUE(pki::make_authority(pki, "dc.example"));
  ASSERT_TRUE(pki::issue(pki, "som", "som1", 30, {"127.0.0.1"}));
  ASSERT_TRUE(pki::issue(pki, "soa", "fw1", 30, {}));
  const auto load = [&](const std::string& certificate) {
    std::string text = kSmallest;
    for (auto at = text.find("/p/"); at != std::string::npos; at = text.find("/p/")) text.replace(at, 3, pki + "/");
    for (auto at = text.find("som1."); at != std::string::npos; at = text.find("som1."))
      text.replace(at, 5, certificate + ".");
    EXPECT_TRUE(write_file(folder.path + "/som.yaml", text, 0600));
    return load_settings(folder.path + "/som.yaml").errors;
  };
  EXPECT_THAT(load("fw1"), Contains(HasSubstr("spiffe://dc.example/sami/som/som1")));
  EXPECT_THAT(load("fw2"), Contains(HasSubstr("fw2")));
  const auto good = [&] {
    Settings settings;
    Config config = Config::parse(kSmallest, "som.yaml");
    settings = read_settings(config);
    settings.credentials = {pki + "/ca.pem", pki + "/som1.pem", pki + "/som1.key"};
    pki::check_configured(config, settings.credentials, settings.machine.identity);
    return config.errors();
  };
  EXPECT_THAT(good(), IsEmpty());
  ASSERT_EQ(::chmod((pki + "/som1.key").c_str(), 0644), 0);
  EXPECT_THAT(good(), Contains(testing::AllOf(HasSubstr("som.yaml:4:"), HasSubstr("som1.key"))));
}

TEST(SomConfig, WhatNeedsARestartIsNamed) {
  Settings wanted = settings();
  wanted.listen = "192.0.2.2:7500";
  wanted.machine.switch_deadline = std::chrono::seconds(9);
  wanted.machine.classes.clear();
  wanted.tdes.clear();
  wanted.log_level = LogLevel::Trace;
  EXPECT_THAT(restart_needed(settings(), wanted), testing::ElementsAre("listen", "deadlines"));
}

}  // namespace
}  // namespace sami::som
