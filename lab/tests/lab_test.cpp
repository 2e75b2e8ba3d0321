// The lab itself, without SAMI: it goes up and down without a trace, and shows the problem that SAMI is for.
#include "lab/lab.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "lab/checks.h"
#include "lab/hypervisor.h"
#include "lab/namespace.h"
#include "lab/poll.h"
#include "lab/traffic.h"

namespace sami::lab {
namespace {

LabOptions without_sami(const std::string& name) {
  LabOptions options;
  options.name = name;
  options.with_sami = false;
  return options;
}

using ::testing::IsEmpty;
using ::testing::Not;

// A lab of its own name, taken down on every path.
class LabTest : public ::testing::TestWithParam<Nat> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "network namespaces need root";
  }
  void TearDown() override {
    for (const auto& name : names_) {
      const auto down = Lab::down(name);
      EXPECT_TRUE(down) << down.error().message;
      EXPECT_THAT(leftovers(name), IsEmpty());
    }
  }

  Lab up(Nat nat, const std::string& suffix = "") {
    LabOptions options;
    options.name = "labtest-" + std::to_string(::getpid()) + suffix;
    options.nat = nat;
    options.with_sami = false;
    auto lab = Lab::up(options);
    if (!lab) throw std::runtime_error(lab.error().message);
    names_.push_back(options.name);
    return *lab;
  }

  // Echo traffic of vm1 the way the kind of NAT wants it.
  struct Flow {
    Traffic server;
    Traffic client;
  };
  static Flow start(const Lab& lab, TrafficKind server_kind, TrafficKind client_kind, int connections) {
    const auto who = usecase1::conversants(lab.state().nat);
    auto server = Traffic::start({server_kind, lab.namespace_of(who.server), "0.0.0.0", usecase1::kServicePort},
                                 programs_folder());
    if (!server) throw std::runtime_error(server.error().message);
    auto client =
        Traffic::start({client_kind, lab.namespace_of(who.client), who.server_address, who.port, connections, 20, 100},
                       programs_folder());
    if (!client) throw std::runtime_error(client.error().message);
    auto open = client->wait_until_established();
    if (!open) throw std::runtime_error(open.error().message);
    return {std::move(*server), std::move(*client)};
  }

  static void move(Lab& lab, const std::string& server) {
    MoveOptions options;
    options.with_sami = false;
    ASSERT_TRUE(LabHypervisor(lab, nullptr).move("vm1", server, options));
  }

  std::vector<std::string> names_;
};

TEST_F(LabTest, TwoLabsSideBySideDoNotMeet) {
  auto one = up(Nat::None, "-a");
  auto two = up(Nat::Snat, "-b");
  auto flow_one = start(one, TrafficKind::TcpServer, TrafficKind::TcpEcho, 2);
  auto flow_two = start(two, TrafficKind::TcpServer, TrafficKind::TcpEcho, 2);
  EXPECT_TRUE(flow_one.client.wait_for_progress(3));
  ASSERT_TRUE(Lab::down(one.state().name));
  EXPECT_THAT(leftovers(one.state().name), IsEmpty());
  EXPECT_TRUE(flow_two.client.wait_for_progress(3));
  names_.erase(names_.begin());
}

TEST_F(LabTest, NameThatIsTakenAndBadNamesAreRefused) {
  auto lab = up(Nat::None);
  const auto again = Lab::up(without_sami(lab.state().name));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, ErrorKind::InvalidInput);
  EXPECT_TRUE(namespace_exists(lab.namespace_of("vm1")));
  EXPECT_EQ(Lab::up(without_sami("../x")).error().kind, ErrorKind::InvalidInput);
  EXPECT_EQ(Lab::down("no-such-lab").error().kind, ErrorKind::InvalidInput);
}

TEST_F(LabTest, UpThatFailsLeavesNothing) {
  const std::string name = "labtest-" + std::to_string(::getpid()) + "-f";
  ASSERT_TRUE(create_namespace(name + "-fw2"));  // in its way
  const auto lab = Lab::up(without_sami(name));
  EXPECT_FALSE(lab);
  EXPECT_THAT(leftovers(name), IsEmpty());
}

TEST_F(LabTest, DownAfterTheStateFileIsLost) {
  auto lab = up(Nat::None);
  ASSERT_EQ(::unlink((lab.folder() + "/lab.json").c_str()), 0);
}

TEST_P(LabTest, TrafficCrossesTheFirewallWhereTheVmIs) {
  auto lab = up(GetParam());
  auto flow = start(lab, TrafficKind::TcpServer, TrafficKind::TcpEcho, 5);
  EXPECT_TRUE(flow.client.wait_for_progress(5));
  EXPECT_EQ(mentioning(*conntrack_entries(lab.namespace_of("fw1")), "10.1.1.10").size(), 5u);
  EXPECT_THAT(*conntrack_entries(lab.namespace_of("fw2")), IsEmpty());
  EXPECT_EQ(firewall_counters(lab.namespace_of("fw1"))->at("invalid"), 0u);

  // What begins after the move crosses the other one, both ways: return traffic follows the announcement.
  ASSERT_TRUE(flow.client.stop());
  move(lab, "server2");
  auto again = start(lab, TrafficKind::UdpServer, TrafficKind::Udp, 3);
  EXPECT_TRUE(again.client.wait_for_progress(5));
  EXPECT_EQ(mentioning(*conntrack_entries(lab.namespace_of("fw2")), "10.1.1.10").size(), 3u);
  EXPECT_EQ(firewall_counters(lab.namespace_of("fw1"))->at("new_dropped"), 0u);
}

TEST_P(LabTest, WithoutStateMigrationTcpStallsForGood) {
  auto lab = up(GetParam());
  auto flow = start(lab, TrafficKind::TcpServer, TrafficKind::TcpEcho, 5);
  ASSERT_TRUE(flow.client.wait_for_progress(3));
  move(lab, "server2");
  const auto progress = flow.client.wait_for_progress(1, milliseconds(2000));
  EXPECT_FALSE(progress);
  const auto counters = *firewall_counters(lab.namespace_of("fw2"));
  EXPECT_GT(counters.at("invalid") + counters.at("new_dropped"), 0u);
  // Back at fw1, where the state still is, they go on; but the kernel forgets what was masqueraded as an address that
  // has gone.
  move(lab, "server1");
  if (GetParam() == Nat::Masquerade) return;
  EXPECT_TRUE(flow.client.wait_for_progress(1, milliseconds(15000)));
}

TEST_F(LabTest, Vm1ReachesVm2BeforeAndAfterAMove) {
  auto lab = up(Nat::Snat);
  auto server = Traffic::start({TrafficKind::TcpServer, lab.namespace_of("vm2"), "0.0.0.0", 7001}, programs_folder());
  ASSERT_TRUE(server);
  const auto talk = [&] {
    auto client =
        Traffic::start({TrafficKind::TcpEcho, lab.namespace_of("vm1"), "10.1.2.20", 7001, 2, 20}, programs_folder());
    return client && client->wait_until_established() && client->wait_for_progress(3);
  };
  EXPECT_TRUE(talk());
  move(lab, "server2");
  EXPECT_TRUE(talk());
  EXPECT_THAT(mentioning(*conntrack_entries(lab.namespace_of("fw2")), "10.1.2.20"), Not(IsEmpty()));
}

TEST_F(LabTest, LossIsLossAndBulkArrivesWhole) {
  auto lab = up(Nat::None);
  ASSERT_TRUE(lab.set_loss(1));
  auto server = Traffic::start({TrafficKind::TcpServer, lab.namespace_of("vm3"), "0.0.0.0", 7001}, programs_folder());
  ASSERT_TRUE(server);
  for (const auto kind : {TrafficKind::TcpUpload, TrafficKind::TcpDownload}) {
    auto client = Traffic::start({kind, lab.namespace_of("vm1"), "10.9.3.30", 7001, 2, 0, 60000}, programs_folder());
    ASSERT_TRUE(client);
    EXPECT_TRUE(poll_until(milliseconds(10000), [&] { return client->report()->bytes > 4'000'000; }));
    const auto report = client->stop();
    ASSERT_TRUE(report);
    EXPECT_EQ(report->mismatches, 0u);
    EXPECT_EQ(report->broken, 0);
  }
  EXPECT_EQ(server->stop()->mismatches, 0u);
}

INSTANTIATE_TEST_SUITE_P(EveryNat, LabTest,
                         ::testing::Values(Nat::None, Nat::Snat, Nat::Dnat, Nat::Both, Nat::Masquerade, Nat::Shared),
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

}  // namespace
}  // namespace sami::lab
