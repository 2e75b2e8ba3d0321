#include "tde/config.h"

#include <gmock/gmock.h>

namespace sami::tde {
namespace {

using testing::HasSubstr;

constexpr const char* kGood = R"(name: tde1
domain: dc.example
master: 192.0.2.1:7500
master_name: som1
pki: {ca: /p/ca.pem, certificate: /p/tde1.pem, key: /p/tde1.key}
state: /var/lib/sami/tde
topology:
  servers: [server1, server2]
  state_hosts:
    - {name: fw1, roles: [firewall]}
    - {name: fw2, roles: [firewall]}
  vms:
    - id: vm1
      server: server1
      interfaces: [{vn: blue, addresses: [10.1.1.10]}]
  paths:
    - {server: server1, to: [0.0.0.0/0], through: [fw1]}
    - {server: server2, to: [0.0.0.0/0], through: [fw2/default, fw1/red]}
hypervisors:
  virtual_machines:
    - {id: vm1, qmp: {server1: /run/a, server2: /run/b}}
)";

std::string replaced(const std::string& what, const std::string& with) {
  std::string text = kGood;
  const auto at = text.find(what);
  if (at == std::string::npos) throw std::runtime_error(what);
  return text.replace(at, what.size(), with);
}

TEST(TdeConfig, TheExampleIsRead) {
  const auto settings = read_settings(Config::load(SAMI_SOURCE_DIR "/packaging/examples/tde.yaml"));
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_EQ(settings->entity.gate.identity, "spiffe://dc.example/sami/tde/tde1");
  EXPECT_THAT(settings->entity.gate.subjects, testing::ElementsAre("vm1"));
  const auto plan = settings->topology.plan("vm1", "server1", "server2");
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->transfers.size(), 2U);
  EXPECT_EQ(plan->subject.interfaces(0).attachment().at("server2"), "tap0");
  ASSERT_EQ(settings->hypervisors.virtual_machines.size(), 1U);
  EXPECT_EQ(settings->hypervisors.precopy_bandwidth, 1048576);
  EXPECT_EQ(settings->hypervisors.virtual_machines[0].sockets.at("server2"), "/run/sami/qmp/server2-vm1.sock");
}

TEST(TdeConfig, Defaults) {
  const auto settings = read_settings(Config::parse(kGood, "tde.yaml"));
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_EQ(settings->control_socket, "/run/sami/tde.sock");
  EXPECT_EQ(settings->entity.gate.verdict_deadline, std::chrono::seconds(3));
  EXPECT_EQ(settings->entity.gate.no_verdict, protocol::NoVerdictPolicy::Cancel);
  EXPECT_EQ(settings->topology.description().vms[0].subject.kind(), common::SUBJECT_KIND_VM);
  const auto& through = settings->topology.description().paths[1].through;
  EXPECT_EQ(to_string(through[0]), "fw2");
  EXPECT_EQ(to_string(through[1]), "fw1/red");
}

TEST(TdeConfig, ErrorsSayWhereAndWhatWasExpected) {
  struct Case {
    std::string what, with;
    std::vector<std::string> said;
  };
  const Case cases[] = {
      {"name: tde1", "nam: tde1", {"tde.yaml:1", "nam"}},
      {"name: tde1", "name: \"a b\"", {"tde.yaml:1", "name", "a b"}},
      {"192.0.2.1:7500", "192.0.2.1", {"tde.yaml:3", "master"}},
      {"state: /var", "state: var", {"tde.yaml:6", "state"}},
      {"servers: [server1, server2]",
       "servers: [server1, server2, server2]",
       {"tde.yaml:8", "server2 again", "each name once"}},
      {"server: server1\n      int",
       "server: server9\n      int",
       {"tde.yaml:13", "server server9", "server1, server2"}},
      {"addresses: [10.1.1.10]", "addresses: [10.1.1]", {"tde.yaml:15", "10.1.1"}},
      {"addresses: [10.1.1.10]", "addresses: []", {"tde.yaml:15", "no address"}},
      {"id: vm1", "id: vm1\n      kind: container", {"tde.yaml:14", "container", "appliance"}},
      {"to: [0.0.0.0/0], through: [fw1]", "to: [10.0.0.1/8], through: [fw1]", {"tde.yaml:17", "10.0.0.1/8"}},
      {"to: [0.0.0.0/0], through: [fw1]", "to: [], through: [fw1]", {"tde.yaml:17", "no prefix"}},
      {"through: [fw1]", "through: [fw9]", {"tde.yaml:17", "State Host fw9", "fw1, fw2"}},
      {"through: [fw1]", "through: [fw1/]", {"tde.yaml:17", "fw1/", "host/context"}},
      {"server: server2, to", "server: server1, to", {"tde.yaml:18", "0.0.0.0/0", "never reached"}},
      {"{id: vm1, qmp", "{id: vm7, qmp", {"tde.yaml:21", "vm7", "a VM of topology.vms"}},
      {"server2: /run/b", "server7: /run/b", {"tde.yaml:21", "server7", "a server of topology.servers"}},
      {"server2: /run/b", "server2: b", {"tde.yaml:21", "server2", "absolute"}},
      {"server2: /run/b", "server2: /run/a", {"tde.yaml:21", "/run/a", "vm1 on server1"}},
      {", server2: /run/b", "", {"tde.yaml:21", "1 sockets", "two or more"}},
      {"hypervisors:", "hypervisors:\n  precopy_bandwidth: 7", {"tde.yaml:20", "precopy_bandwidth", "7"}},
      {"hypervisors:", "hypervisors:\n  full_bandwidth: 5000", {"tde.yaml:20", "more than precopy_bandwidth"}},
  };
  for (const auto& [what, with, said] : cases) {
    const auto settings = read_settings(Config::parse(replaced(what, with), "tde.yaml"));
    ASSERT_FALSE(settings) << with;
    EXPECT_EQ(settings.error().kind, ErrorKind::InvalidInput);
    for (const auto& part : said) EXPECT_THAT(settings.error().message, HasSubstr(part)) << with;
  }
}

}  // namespace
}  // namespace sami::tde
