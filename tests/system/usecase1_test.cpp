// Use case 1 of the architecture draft: vm1 moves from behind fw1 to behind fw2, and nothing breaks.
#include <filesystem>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "lab/poll.h"
#include "lab/process.h"
#include "runtime/journal.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

using Json = nlohmann::json;

class Usecase1 : public SystemTest, public ::testing::WithParamInterface<std::tuple<Nat, TrafficKind>> {};

TEST_P(Usecase1, TrafficRunsBeforeDuringAndAfterTheMove) {
  const auto [nat, kind] = GetParam();
  constexpr int kConnections = 20;
  up(nat);
  auto vm1 = vm1_traffic(kind, kConnections);
  auto vm2 = converse("vm2", "vm3", kVm3Address, 7002, 7002, TrafficKind::TcpEcho, 5);
  auto between = converse("vm1", "vm2", kVm2Address, 7003, 7003, kind, 5);
  for (auto* traffic : {&vm1, &vm2, &between}) ASSERT_TRUE(traffic->client.wait_for_progress(10));
  const auto peers = peers_of(vm1.server);
  ASSERT_THAT(peers, SizeIs(kConnections));
  const auto others = not_mentioning(entries("fw1"), kVm1Address);
  EXPECT_THAT(entries("fw2"), IsEmpty());

  const auto report = move("server2");
  EXPECT_TRUE(report.moved);
  EXPECT_EQ(report.instruction, "Continue");
  EXPECT_EQ(report.final_state, "DONE");
  for (auto* traffic : {&vm1, &vm2, &between}) {
    const auto progress = traffic->client.wait_for_progress(20);
    EXPECT_TRUE(progress) << progress.error().message;
  }

  // The same external addresses and ports; nothing refused on the way.
  EXPECT_EQ(peers_of(vm1.server), peers);
  EXPECT_EQ(vm1.server.report()->changed_peers, 0);
  EXPECT_EQ(invalid_packets(), 0u);
  EXPECT_EQ(dropped_as_new(), 0u);

  // fw1 keeps of vm1 only what still crosses it (the flows to vm2), and all of the others; fw2 has all of vm1.
  const auto left = not_mentioning(mentioning(entries("fw1"), kVm1Address), kVm2Address);
  EXPECT_THAT(left, IsEmpty());
  EXPECT_THAT(mentioning(mentioning(entries("fw1"), kVm1Address), kVm2Address), SizeIs(5));
  EXPECT_EQ(not_mentioning(entries("fw1"), kVm1Address), others);
  EXPECT_THAT(entries("fw2"), SizeIs(kConnections + 5));
  EXPECT_THAT(not_mentioning(entries("fw2"), kVm1Address), IsEmpty());

  for (auto* traffic : {&vm1, &vm2, &between}) {
    const auto last = traffic->client.stop();
    ASSERT_TRUE(last);
    EXPECT_EQ(last->broken, 0) << to_string(*last);
    EXPECT_EQ(last->mismatches, 0u);
    EXPECT_LT(last->longest_stall_ms, 3000) << to_string(*last);
    RecordProperty("longest_stall_ms", static_cast<int>(last->longest_stall_ms));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryTranslation, Usecase1,
                         ::testing::Combine(::testing::Values(Nat::None, Nat::Snat, Nat::Dnat, Nat::Both,
                                                              Nat::Masquerade),
                                            ::testing::Values(TrafficKind::TcpEcho, TrafficKind::Udp)),
                         [](const auto& tested) {
                           return std::string(to_string(std::get<0>(tested.param))) +
                                  (std::get<1>(tested.param) == TrafficKind::Udp ? "_udp" : "_tcp");
                         });

using Usecase1Test = SystemTest;

// The address that vm1 appears as stays at fw1, and no way leads back from there: a no-go, not a silent break.
TEST_F(Usecase1Test, SharedExternalAddressIsANoGoAndNothingBreaks) {
  up(Nat::Shared);
  auto vm1 = vm1_traffic(TrafficKind::TcpEcho, 5);
  ASSERT_TRUE(vm1.client.wait_for_progress(3));
  const auto report = move("server2");
  EXPECT_FALSE(report.moved);
  EXPECT_EQ(report.final_state, "ROLLED_BACK");
  EXPECT_TRUE(vm1.client.wait_for_progress(10));
  EXPECT_THAT(entries("fw2"), IsEmpty());
  EXPECT_EQ(invalid_packets(), 0u);
}

// New connections after the move begin at fw2 and end there.
TEST_F(Usecase1Test, NewConnectionsAfterTheMoveAreTheDestinations) {
  up(Nat::Snat);
  auto old = vm1_traffic(TrafficKind::TcpEcho, 2);
  ASSERT_TRUE(move("server2").moved);
  auto fresh = converse("vm1", "vm3", kVm3Address, 7005, 7005, TrafficKind::TcpEcho, 3);
  EXPECT_TRUE(fresh.client.wait_for_progress(5));
  EXPECT_TRUE(old.client.wait_for_progress(5));
  EXPECT_THAT(entries("fw2"), SizeIs(5));
  EXPECT_THAT(mentioning(entries("fw1"), kVm1Address), IsEmpty());
}

TEST_F(Usecase1Test, BulkTransferUnderLossArrivesWhole) {
  up(Nat::Snat);
  auto upload = converse("vm1", "vm3", kVm3Address, 7001, 7001, TrafficKind::TcpUpload, 3, 1, 20000);
  auto download = converse("vm1", "vm3", kVm3Address, 7002, 7002, TrafficKind::TcpDownload, 1);
  ASSERT_TRUE(lab().set_loss(1));
  for (const char* server : {"server2", "server1", "server2", "server1"}) {
    const auto report = move(server);
    EXPECT_TRUE(report.moved);
    EXPECT_EQ(report.final_state, "DONE");
    for (auto* traffic : {&upload, &download}) {
      const auto progress = traffic->client.wait_for_progress(20, std::chrono::seconds(20));
      EXPECT_TRUE(progress) << progress.error().message;
    }
  }
  for (auto* traffic : {&upload, &download}) {
    const auto server = traffic->server.report();  // first: a client that leaves in the middle of a download resets it
    const auto client = traffic->client.stop();
    ASSERT_TRUE(client && server);
    EXPECT_EQ(client->broken + server->broken, 0) << to_string(*client) << "\n" << to_string(*server);
    EXPECT_EQ(client->mismatches + server->mismatches, 0u);
  }
  EXPECT_EQ(invalid_packets(), 0u);  // windows are exact
}

// A peer calls the VM while it is paused, after the last round: only the source has that connection, and the residue
// brings it to the destination.
// Without exact windows: with them the barrier holds back what would begin at the source.
TEST_F(Usecase1Test, WhatBeginsDuringThePauseComesAsResidue) {
  up(Nat::Dnat);
  reconfigure("fw1", "classes: {connection_tracking: {windows: liberal}}\n", "");
  auto vm1 = vm1_traffic(TrafficKind::TcpEcho, 3);
  const auto who = usecase1::conversants(Nat::Dnat);
  std::optional<Traffic> late;
  MoveOptions options;
  options.on_reaching = [&](Misbehaviour::At reached) {
    if (reached != Misbehaviour::At::Instructed) return;
    auto started =
        Traffic::start({TrafficKind::TcpEcho, lab().namespace_of(who.client), who.server_address, who.port, 1, 20, 100},
                       lab().binaries());
    ASSERT_TRUE(started);
    late.emplace(std::move(*started));
    ASSERT_TRUE(poll_until(milliseconds(5000), [&] { return entries("fw1").size() == 4; }));
  };
  const auto report = move("server2", options);
  EXPECT_EQ(report.final_state, "DONE");
  std::uint64_t residue = 0;
  const auto shown = Json::parse(sami({"migration", "show", report.migration_id}));
  for (const auto& transfer : shown["transfers"]) residue += transfer["residue"].get<std::uint64_t>();
  EXPECT_EQ(residue, 1u);
  ASSERT_TRUE(late);
  EXPECT_TRUE(late->wait_until_established());
  EXPECT_TRUE(vm1.client.wait_for_progress(5));
  EXPECT_THAT(entries("fw1"), IsEmpty());
  EXPECT_THAT(entries("fw2"), SizeIs(4));
}

// A packet that was under way makes an entry at the source again, after all of them were deleted.
TEST_F(Usecase1Test, WhatLatePacketsMakeAtTheSourceIsSwept) {
  up(Nat::None);
  reconfigure("som1", "grace_ms: 2000", "grace_ms: 200");
  auto vm1 = vm1_traffic(TrafficKind::TcpEcho, 3);
  RunOptions at_fw1;
  at_fw1.network_namespace = lab().namespace_of("fw1");
  std::future<bool> late_packet;
  MoveOptions options;
  options.on_reaching = [&](Misbehaviour::At reached) {
    if (reached != Misbehaviour::At::Resumed) return;
    late_packet = std::async(std::launch::async, [this, at_fw1] {
      return poll_until(milliseconds(10000), [&] { return entries("fw1").empty(); }) &&
             run({"conntrack", "-I", "-p", "udp", "-s", kVm1Address, "-d", kVm3Address, "--sport", "4444", "--dport",
                  "53", "-t", "600"},
                 at_fw1);
    });
  };
  EXPECT_EQ(move("server2", options).final_state, "DONE");
  ASSERT_TRUE(late_packet.valid());
  EXPECT_TRUE(late_packet.get());
  EXPECT_THAT(entries("fw1"), IsEmpty());
  EXPECT_THAT(entries("fw2"), SizeIs(3));
}

// What a daemon holds that must not grow with the number of moves.
struct Holdings {
  std::size_t descriptors = 0;
  std::size_t threads = 0;
  std::size_t resident_kilobytes = 0;
  std::size_t journal_entries = 0;
};

Holdings holdings_of(const std::string& lab_folder, const DaemonRecord& daemon) {
  namespace fs = std::filesystem;
  const fs::path process = "/proc/" + std::to_string(daemon.process.pid);
  const auto count = [](const fs::path& folder) {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
  };
  Holdings found{count(process / "fd"), count(process / "task"), 0, 0};
  std::ifstream status(process / "status");
  for (std::string word; status >> word;) {
    if (word == "VmRSS:") status >> found.resident_kilobytes;
  }
  // A copy: the daemon holds its own. Nothing is being written between two moves.
  const fs::path folder = fs::path(lab_folder) / daemon.name, copy = fs::path(lab_folder) / "copy";
  fs::remove_all(copy);
  fs::create_directory(copy);
  for (const char* file : {"journal.db", "journal.db-wal"}) fs::copy_file(folder / file, copy / file);
  auto journal = open_journal(copy.string());
  const auto image = journal ? (*journal)->load() : tl::unexpected(journal.error());
  if (!image) throw std::runtime_error(image.error().message);
  found.journal_entries = image->size();
  return found;
}

TEST_F(Usecase1Test, TwoHundredMovesToAndFroWithTwoHundredConnections) {
  constexpr int kConnections = 200;
  up(Nat::Snat);
  auto vm1 = vm1_traffic(TrafficKind::TcpEcho, kConnections, 200);
  const auto peers = peers_of(vm1.server);
  std::map<std::string, Holdings> early;
  for (int i = 0; i < 200; ++i) {
    if (i == 40) {  // by now buffers and pools have their size
      for (const auto& daemon : lab().state().daemons) early[daemon.name] = holdings_of(lab().folder(), daemon);
    }
    const bool away = i % 2 == 0;
    const auto report = move(away ? "server2" : "server1");
    ASSERT_TRUE(report.moved) << "move " << i << ": " << report.detail;
    ASSERT_EQ(report.final_state, "DONE") << "move " << i;
    ASSERT_THAT(entries(away ? "fw2" : "fw1"), SizeIs(kConnections)) << "move " << i;
    ASSERT_THAT(entries(away ? "fw1" : "fw2"), IsEmpty()) << "move " << i;
  }
  const auto progress = vm1.client.wait_for_progress(5, std::chrono::seconds(20));
  EXPECT_TRUE(progress) << progress.error().message;
  EXPECT_EQ(peers_of(vm1.server), peers);
  const auto last = vm1.client.stop();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->broken, 0) << to_string(*last);
  EXPECT_EQ(invalid_packets(), 0u);
  RecordProperty("longest_stall_ms", static_cast<int>(last->longest_stall_ms));

  for (const auto& daemon : lab().state().daemons) {
    const Holdings before = early[daemon.name], after = holdings_of(lab().folder(), daemon);
    EXPECT_LE(after.descriptors, before.descriptors + 4) << daemon.name;
    EXPECT_LE(after.threads, before.threads + 4) << daemon.name;
    EXPECT_LE(after.resident_kilobytes, before.resident_kilobytes + 8192) << daemon.name;
    const std::size_t remembered = daemon.program == "sami-som" ? 160 : 0;  // the master keeps what has ended
    EXPECT_LE(after.journal_entries, before.journal_entries + remembered) << daemon.name;
  }
}

}  // namespace
}  // namespace sami::lab
