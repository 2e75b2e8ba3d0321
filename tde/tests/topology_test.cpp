#include "tde/topology.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace sami::tde {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Paths = std::vector<TopologyDescription::Path>;

HostReference reference(const std::string& text) {
  const auto slash = text.find('/');
  return slash == std::string::npos ? HostReference{text, ""}
                                    : HostReference{text.substr(0, slash), text.substr(slash + 1)};
}

TopologyDescription::Path path(const std::string& server, const std::vector<std::string>& to,
                               const std::vector<std::string>& through) {
  TopologyDescription::Path path{server, {}, {}, "paths[9]"};
  for (const auto& prefix : to) path.to.push_back(to_message(parse_prefix(prefix).value()));
  for (const auto& host : through) path.through.push_back(reference(host));
  return path;
}

common::Subject vm(const std::string& id, const std::string& address = std::string("\x0a\x01\x01\x0a", 4)) {
  common::Subject subject;
  subject.set_id(id);
  auto* interface = subject.add_interfaces();
  interface->set_vn_name("blue");
  interface->add_addresses(address);
  (*interface->mutable_attachment())["server1"] = "tap0";
  return subject;
}

TopologyDescription description(Paths paths) {
  TopologyDescription description;
  description.servers = {{"server1", "servers[0]"}, {"server2", "servers[1]"}};
  for (const auto* name : {"fw1", "fw2", "fw3", "fw4"}) description.state_hosts.push_back({name, {"firewall"}, ""});
  for (const auto* name : {"nat1", "nat2"}) description.state_hosts.push_back({name, {"nat"}, ""});
  description.state_hosts.push_back({"box", {"nat", "firewall"}, ""});
  description.vms = {{vm("vm1"), "server1", "vms[0]"}};
  description.paths = std::move(paths);
  return description;
}

std::string shown(const common::Transfer& transfer) {
  return fmt::format("{}: {} -> {} {}{} ({})", transfer.index(),
                     to_string(HostReference{transfer.source_host(), transfer.source_context()}),
                     to_string(HostReference{transfer.destination_host(), transfer.destination_context()}),
                     transfer.disposition() == common::DISPOSITION_MOVE ? "MOVE" : "COPY",
                     transfer.leftover() ? " leftover" : "", to_string(transfer.peers()));
}
std::vector<std::string> shown(const std::vector<common::Transfer>& transfers) {
  std::vector<std::string> all;
  for (const auto& transfer : transfers) all.push_back(shown(transfer));
  return all;
}

Plan plan_of(Paths paths) {
  const auto topology = Topology::make(description(std::move(paths)));
  if (!topology) throw std::runtime_error(topology.error().found);
  return topology->plan("vm1", "server1", "server2").value();
}
// One class of peers.
Plan plan_of(const std::vector<std::string>& before, const std::vector<std::string>& after) {
  return plan_of({path("server1", {"0.0.0.0/0"}, before), path("server2", {"0.0.0.0/0"}, after)});
}

// packaging/examples/tde.yaml: VM2 (10.1.2.0/24) stays behind FW1, so flows with it still cross FW1.
Paths example() {
  return {path("server1", {"10.1.2.0/24"}, {"fw1"}), path("server2", {"10.1.2.0/24"}, {"fw2", "fw1"}),
          path("server1", {"0.0.0.0/0"}, {"fw1"}), path("server2", {"0.0.0.0/0"}, {"fw2"})};
}

TEST(Topology, PeersThatStayBehindTheSourceAreCopiedAndRetained) {
  const Plan plan = plan_of(example());
  EXPECT_EQ(plan.subject.id(), "vm1");
  EXPECT_THAT(shown(plan.transfers),
              ElementsAre("0: fw1 -> fw2 COPY (10.1.2.0/24)", "1: fw1 -> fw2 MOVE (0.0.0.0/0 except 10.1.2.0/24)"));
  EXPECT_THAT(plan.notes, ElementsAre("fw1 stays on the path: retained (peers: 10.1.2.0/24)"));
}

TEST(Topology, TheWayBackUndoesTheWayThere) {
  const auto topology = Topology::make(description(example())).value();
  const Plan plan = topology.plan("vm1", "server2", "server1").value();
  EXPECT_THAT(shown(plan.transfers), ElementsAre("0: fw2 -> fw1 MOVE leftover (10.1.2.0/24)",
                                                 "1: fw2 -> fw1 MOVE (0.0.0.0/0 except 10.1.2.0/24)"));
  EXPECT_THAT(plan.notes, ElementsAre("fw1 stays on the path: retained (peers: 10.1.2.0/24)"));
}

TEST(Topology, EachHostGetsTheStateOfItsRole) {
  EXPECT_THAT(shown(plan_of({"fw1", "nat1"}, {"fw2", "nat2"}).transfers),
              ElementsAre("0: fw1 -> fw2 MOVE (0.0.0.0/0)", "1: nat1 -> nat2 MOVE (0.0.0.0/0)"));
  EXPECT_THAT(shown(plan_of({"fw1", "fw3"}, {"fw2", "fw4"}).transfers),
              ElementsAre("0: fw1 -> fw2 MOVE (0.0.0.0/0)", "1: fw3 -> fw4 MOVE (0.0.0.0/0)"));
  EXPECT_THAT(shown(plan_of({"fw1"}, {"box"}).transfers), ElementsAre("0: fw1 -> box MOVE (0.0.0.0/0)"));
}

TEST(Topology, AHostThatLeavesIsReplacedBeforeOneThatStaysIsCopied) {
  const Plan plan = plan_of({"fw1", "fw3"}, {"fw2", "fw1"});
  EXPECT_THAT(shown(plan.transfers), ElementsAre("0: fw3 -> fw2 MOVE (0.0.0.0/0)"));
  EXPECT_THAT(shown(plan.retained), ElementsAre("0: fw1 -> fw1 COPY (0.0.0.0/0)"));
}

TEST(Topology, MoreNewHostsThanOldShareTheLastSource) {
  EXPECT_THAT(shown(plan_of({"fw1"}, {"fw2", "fw3"}).transfers),
              ElementsAre("0: fw1 -> fw2 MOVE (0.0.0.0/0)", "1: fw1 -> fw3 MOVE (0.0.0.0/0)"));
}

TEST(Topology, HostsWithoutCounterpartAreNoted) {
  const Plan gained = plan_of({"fw1"}, {"fw2", "nat2"});
  EXPECT_THAT(shown(gained.transfers), ElementsAre("0: fw1 -> fw2 MOVE (0.0.0.0/0)"));
  EXPECT_THAT(gained.notes, ElementsAre(HasSubstr("nat2 is new on the path")));
  const Plan lost = plan_of({"fw1", "nat1"}, {"fw2"});
  EXPECT_THAT(shown(lost.transfers), ElementsAre("0: fw1 -> fw2 MOVE (0.0.0.0/0)"));
  EXPECT_THAT(lost.notes, ElementsAre(HasSubstr("nat1 is no longer on the path")));
}

TEST(Topology, ContextsOfOneHost) {
  EXPECT_THAT(shown(plan_of({"fw1/a"}, {"fw1/b"}).transfers), ElementsAre("0: fw1/a -> fw1/b MOVE (0.0.0.0/0)"));
  EXPECT_THAT(shown(plan_of({"fw1/a"}, {"fw1/a", "fw1/b"}).transfers),
              ElementsAre("0: fw1/a -> fw1/b COPY (0.0.0.0/0)"));
  // Its own other context is nearer than another firewall.
  EXPECT_THAT(shown(plan_of({"fw2", "fw1/a"}, {"fw1/b", "fw3"}).transfers),
              ElementsAre("0: fw1/a -> fw1/b MOVE (0.0.0.0/0)", "1: fw2 -> fw3 MOVE (0.0.0.0/0)"));
  const Plan same = plan_of({"fw1/a"}, {"fw1/a"});
  EXPECT_THAT(same.transfers, IsEmpty());
  EXPECT_THAT(shown(same.retained), ElementsAre("0: fw1/a -> fw1/a COPY (0.0.0.0/0)"));
  EXPECT_THAT(same.notes, ElementsAre("fw1/a stays on the path: retained (peers: 0.0.0.0/0)"));
}

TEST(Topology, TheSameTransferForSeveralClassesIsOne) {
  EXPECT_THAT(shown(plan_of({path("server1", {"10.1.0.0/16"}, {"fw1"}), path("server1", {"0.0.0.0/0"}, {"fw1"}),
                             path("server2", {"10.9.0.0/16"}, {"fw3"}), path("server2", {"0.0.0.0/0"}, {"fw2"})})
                        .transfers),
              ElementsAre("0: fw1 -> fw2 MOVE (0.0.0.0/0 except 10.9.0.0/16)", "1: fw1 -> fw3 MOVE (10.9.0.0/16)"));
}

TEST(Topology, EarlierEntriesWin) {
  EXPECT_THAT(shown(plan_of({path("server1", {"10.1.0.0/16"}, {"fw1"}), path("server1", {"10.0.0.0/8"}, {"fw3"}),
                             path("server2", {"10.0.0.0/8"}, {"fw2"})})
                        .transfers),
              ElementsAre("0: fw1 -> fw2 MOVE (10.1.0.0/16)", "1: fw3 -> fw2 MOVE (10.0.0.0/8 except 10.1.0.0/16)"));
}

TEST(Topology, PeersWithoutAPathOnOneSideAreNoted) {
  const Plan plan =
      plan_of({path("server1", {"10.0.0.0/8"}, {"fw1"}), path("server2", {"10.1.0.0/16", "11.0.0.0/8"}, {"fw2"})});
  EXPECT_THAT(shown(plan.transfers), ElementsAre("0: fw1 -> fw2 MOVE (10.1.0.0/16)"));
  EXPECT_THAT(plan.notes, ElementsAre("server2 has no path to peers that server1 reaches: nothing moves for them "
                                      "(peers: 10.0.0.0/8 except 10.1.0.0/16)",
                                      "server1 had no path to peers that server2 reaches: there is nothing to move "
                                      "(peers: 11.0.0.0/8)"));
}

TEST(Topology, AddressFamiliesHaveTheirOwnPaths) {
  EXPECT_THAT(shown(plan_of({path("server1", {"0.0.0.0/0", "::/0"}, {"fw1"}), path("server2", {"0.0.0.0/0"}, {"fw2"}),
                             path("server2", {"::/0"}, {"fw3"})})
                        .transfers),
              ElementsAre("0: fw1 -> fw2 MOVE (0.0.0.0/0)", "1: fw1 -> fw3 MOVE (::/0)"));
}

TEST(Topology, PlanRefusesWhatItDoesNotKnow) {
  const auto topology = Topology::make(description(example())).value();
  EXPECT_EQ(topology.plan("vm9", "server1", "server2").error().message, "no VM vm9 in the topology");
  EXPECT_EQ(topology.plan("vm1", "server1", "server9").error().message,
            "no server server9 in the topology; expected one of server1, server2");
  EXPECT_EQ(topology.plan("vm1", "server1", "server1").error().message, "vm1 is on server1 already");
}

TEST(Topology, RefusesContradictions) {
  struct Case {
    std::string where, found, expected;
    std::function<void(TopologyDescription&)> spoil;
  };
  const Case cases[] = {
      {"servers[2]", "server1 again", "first is at servers[0]",
       [](auto& d) {
         d.servers.push_back({"server1", "servers[2]"});
       }},
      {"", "fw1 again", "each name once",
       [](auto& d) {
         d.state_hosts.push_back({"fw1", {"nat"}, ""});
       }},
      {"vms[1]", "vm1 again", "first is at vms[0]",
       [](auto& d) {
         d.vms.push_back({vm("vm1"), "server1", "vms[1]"});
       }},
      {"vms[1]", "10.1.1.10/32", "that vm1 does not have in virtual network blue",
       [](auto& d) {
         d.vms.push_back({vm("vm2"), "server1", "vms[1]"});
       }},
      {"vms[0]", "server server9", "a declared server: server1, server2", [](auto& d) { d.vms[0].server = "server9"; }},
      {"vms[0]", "an attachment at server9", "a declared server or State Host: server1, server2, fw1",
       [](auto& d) { (*d.vms[0].subject.mutable_interfaces(0)->mutable_attachment())["server9"] = "tap0"; }},
      {"paths[9]", "server server9", "a declared server",
       [](auto& d) { d.paths.push_back(path("server9", {"::/0"}, {"fw1"})); }},
      {"paths[9]", "State Host fw9", "a declared State Host: fw1",
       [](auto& d) { d.paths.push_back(path("server1", {"::/0"}, {"fw9"})); }},
      {"paths[9]", "fw1/a again", "once on a path",
       [](auto& d) {
         d.paths.push_back(path("server1", {"::/0"}, {"fw1/a", "fw1/a"}));
       }},
      {"paths[9]", "10.1.2.128/25", "never reached",
       [](auto& d) {
         d.paths.push_back(path("server1", {"::/0", "10.1.2.128/25"}, {"fw2"}));
       }},
  };
  for (const auto& [where, found, expected, spoil] : cases) {
    auto spoilt = description(example());
    spoil(spoilt);
    const auto topology = Topology::make(std::move(spoilt));
    ASSERT_FALSE(topology) << found;
    EXPECT_EQ(topology.error().where, where);
    EXPECT_EQ(topology.error().found, found);
    EXPECT_THAT(topology.error().expected, HasSubstr(expected));
  }
}

TEST(Topology, LinesForPeople) {
  const auto topology =
      Topology::make(description({path("server1", {"10.1.2.0/24"}, {"fw1", "nat1"}), path("server2", {"::/0"}, {})}));
  const auto lines = topology->lines({{"vm1", "server2"}});
  EXPECT_THAT(lines, testing::IsSupersetOf({"server server1: -", "server server2: vm1", "state host box: nat, firewall",
                                            "path from server1 to 10.1.2.0/24: fw1 -> nat1",
                                            "path from server2 to ::/0: direct"}));
}

}  // namespace
}  // namespace sami::tde
