// A real QEMU guest moves between two firewalls, and the gate of sami-tde stands in its live migration.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "lab/checks.h"
#include "lab/gate_client.h"
#include "lab/lab.h"
#include "lab/poll.h"
#include "lab/process.h"
#include "lab/qemu.h"
#include "lab/traffic.h"

namespace sami::lab {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using At = QemuMoveOptions::At;

constexpr const char* kGuest = "10.1.1.10";
constexpr milliseconds kPatience{30000};

template <typename T>
T unwrap(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

class Qemu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "network namespaces need root";
    auto image = guest_image();
    if (!image) GTEST_SKIP() << image.error().message;
    image_ = *image;
  }

  void TearDown() override {
    traffic_.clear();
    guest_.reset();
    if (!lab_) return;
    if (HasFailure()) {
      for (const auto& daemon : lab_->state().daemons) print(daemon.log);
      for (const auto& file : std::filesystem::directory_iterator(lab_->folder() + "/qmp")) {
        if (file.path().extension() == ".serial" || file.path().extension() == ".log") print(file.path());
      }
    }
    const auto down = Lab::down(lab_->state().name);
    EXPECT_TRUE(down) << down.error().message;
    EXPECT_THAT(leftovers(lab_->state().name), IsEmpty());
  }

  static void print(const std::string& file) {
    constexpr std::size_t kShown = 8000;
    std::ifstream in(file);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    std::cerr << "---- " << file << "\n" << text.substr(text.size() - std::min(text.size(), kShown)) << "\n";
  }

  // The lab with the guest at server1; vm3 speaks to it through fw1: TCP and UDP every 10 ms, and slow flows.
  void up(int slow_flows, const std::string& gate = "") {
    LabOptions options;
    options.name = "qemu-" + std::to_string(::getpid());
    options.qemu = true;
    options.gate = gate;
    lab_ = unwrap(Lab::up(options));
    guest_.emplace(unwrap(QemuGuest::boot(*lab_, image_, {})));
    converse(TrafficKind::TcpEcho, 1, 10);
    converse(TrafficKind::Udp, 1, 10);
    flows_ = 2;
    if (slow_flows == 0) return;
    converse(TrafficKind::TcpEcho, slow_flows, 5000);
    flows_ += slow_flows;
  }
  void converse(TrafficKind kind, int connections, int interval_ms) {
    traffic_.push_back(unwrap(
        Traffic::start({kind, lab_->namespace_of("vm3"), kGuest, 7001, connections, interval_ms}, lab_->binaries())));
    const auto established = traffic_.back().wait_until_established(kPatience);
    if (!established) throw std::runtime_error(established.error().message);
  }
  Traffic& tcp() { return traffic_.at(0); }
  Traffic& udp() { return traffic_.at(1); }

  std::vector<std::string> entries(const std::string& firewall) const {
    return mentioning(unwrap(conntrack_entries(lab_->namespace_of(firewall))), kGuest);
  }
  std::uint64_t count(const std::string& firewall, const std::string& counter) const {
    return unwrap(firewall_counters(lab_->namespace_of(firewall))).at(counter);
  }

  // What both firewalls have refused of the guest's traffic, before a move. (The one that is left refuses what the
  // fabric still sends there when its entries are gone.)
  void note_refused() {
    for (const auto& firewall : usecase1::firewalls()) refused_[firewall] = refused(firewall);
  }
  std::uint64_t refused(const std::string& firewall) const {
    return count(firewall, "invalid") + count(firewall, "new_dropped");
  }
  QemuMove move(const std::string& server, const QemuMoveOptions& options = {}) {
    note_refused();
    return unwrap(guest_->move(server, options));
  }

  // Every connection lives; its entries are at the firewall in front of the guest and nowhere else; and that firewall
  // let everything through.
  void expect_whole(const std::string& server) {
    ASSERT_EQ(guest_->server(), server);
    EXPECT_EQ(unwrap(guest_->status()), "running");
    const std::string here = server == "server1" ? "fw1" : "fw2";
    const std::string there = server == "server1" ? "fw2" : "fw1";
    for (auto* traffic : {&tcp(), &udp()}) {
      const auto progress = traffic->wait_for_progress(20, kPatience);
      EXPECT_TRUE(progress) << progress.error().message;
    }
    EXPECT_TRUE(poll_until(kPatience, [&] { return entries(there).empty(); }));
    EXPECT_THAT(entries(there), IsEmpty());
    EXPECT_THAT(entries(here), SizeIs(flows_));
    for (auto& traffic : traffic_) {
      const auto report = unwrap(traffic.report());
      EXPECT_EQ(report.broken, 0) << to_string(report);
      EXPECT_EQ(report.mismatches, 0u) << to_string(report);
    }
    EXPECT_EQ(refused(here), refused_[here]);
  }

  // The move whose destination stands by stays without a verdict: the agent there does nothing any more.
  void freeze_destination_at_standby() {
    const auto gate = make_gate_client(unwrap(lab_->daemon("tde1")).control_socket);
    const auto id = unwrap(gate->announce("vm1", "server2", false));  // again: the same move
    const auto watch = unwrap(gate->watch(id));
    ASSERT_TRUE(poll_until(kPatience, [&] {
      const auto status = watch->next(std::chrono::milliseconds(1000));
      return status && status->instruction == "MayPause";
    }));
    ASSERT_TRUE(signal_process(unwrap(lab_->daemon("fw2")).process, SIGSTOP));
  }
  void thaw_destination() { ASSERT_TRUE(signal_process(unwrap(lab_->daemon("fw2")).process, SIGCONT)); }

  GuestImage image_;
  std::optional<Lab> lab_;
  std::optional<QemuGuest> guest_;
  std::vector<Traffic> traffic_;
  int flows_ = 0;
  std::map<std::string, std::uint64_t> refused_;
};

int round_trips() {
  const char* wanted = std::getenv("SAMI_QEMU_ROUND_TRIPS");
  return wanted == nullptr ? 20 : std::max(1, static_cast<int>(std::strtol(wanted, nullptr, 10)));
}

TEST_F(Qemu, ToAndFroWithAThousandFlows) {
  constexpr int kFlows = 1000;
  up(kFlows);
  std::vector<double> gates;
  for (int i = 0; i < 2 * round_trips(); ++i) {
    const bool away = i % 2 == 0;
    const auto move = this->move(away ? "server2" : "server1");
    ASSERT_TRUE(move.moved) << "move " << i << ": " << to_string(move);
    gates.push_back(move.gate_ms);
    ASSERT_TRUE(poll_until(kPatience, [&] { return entries(away ? "fw1" : "fw2").empty(); })) << "move " << i;
    ASSERT_THAT(entries(away ? "fw2" : "fw1"), SizeIs(flows_)) << "move " << i;
    const auto progress = tcp().wait_for_progress(1, std::chrono::seconds(5));
    ASSERT_TRUE(progress) << "move " << i << ": " << progress.error().message;
    ASSERT_EQ(unwrap(tcp().report()).broken, 0) << "move " << i;
    ASSERT_EQ(refused(away ? "fw2" : "fw1"), refused_[away ? "fw2" : "fw1"]) << "move " << i;
  }
  expect_whole("server1");
  const auto slow = traffic_.at(2).wait_for_progress(1, kPatience);
  EXPECT_TRUE(slow) << slow.error().message;
  EXPECT_EQ(unwrap(traffic_.at(2).report()).established, kFlows);
  std::sort(gates.begin(), gates.end());
  std::cerr << "gate: median " << gates.at(gates.size() / 2) << " ms, longest " << gates.back() << " ms of "
            << gates.size() << " moves\n"
            << to_string(unwrap(tcp().report())) << "\n";
  RecordProperty("gate_ms_median", std::to_string(gates.at(gates.size() / 2)));
}

class QemuPolicy : public Qemu, public ::testing::WithParamInterface<std::string> {};

// Nobody is left who could give a verdict: the gate's own deadline and the operator's policy end the pause.
TEST_P(QemuPolicy, MasterKilledWhileTheGuestIsPaused) {
  up(20, "{standby_ms: 30000, verdict_ms: 1000, no_verdict: " + GetParam() + "}");
  QemuMoveOptions options;
  options.on_reaching = [&](At at) {
    if (at == At::Active) freeze_destination_at_standby();
    if (at != At::Paused) return;
    ASSERT_TRUE(lab_->kill_daemon("som1", SIGKILL));
    thaw_destination();
  };
  const auto move = this->move("server2", options);
  EXPECT_EQ(move.moved, GetParam() == "continue") << to_string(move);
  EXPECT_LT(move.not_running_ms, 3000) << to_string(move);
  EXPECT_GT(move.not_running_ms, 900) << to_string(move);
  const auto progress = tcp().wait_for_progress(20, kPatience);
  EXPECT_TRUE(progress) << "without a master: " << progress.error().message;
  ASSERT_TRUE(lab_->start_daemon("som1"));
  // Until the destination noticed that it has no master, windows of the time before the pause were strict there.
  if (move.moved) note_refused();
  expect_whole(move.moved ? "server2" : "server1");
}

INSTANTIATE_TEST_SUITE_P(Either, QemuPolicy, ::testing::Values("cancel", "continue"),
                         [](const auto& tested) { return tested.param; });

// fw2 translates an address like that of a flow of the guest's: it cannot take it. The guest runs on, and nobody
// notices.
TEST_F(Qemu, EssentialClassFailsAndTheGuestRunsOn) {
  up(20);
  const auto all = entries("fw1");
  const auto flow = std::find_if(all.begin(), all.end(), [](const auto& one) { return one.rfind("tcp", 0) == 0; });
  ASSERT_NE(flow, all.end());
  const auto from = flow->find("sport=") + 6;
  const std::string port = flow->substr(from, flow->find(' ', from) - from);
  RunOptions there;
  there.network_namespace = lab_->namespace_of("fw2");
  unwrap(run({"conntrack", "-I",  "-p",        "tcp",      "-s",      "10.9.3.30",   "-d", kGuest,
              "--sport",   port,  "--dport",   "7001",     "--state", "ESTABLISHED", "-u", "SEEN_REPLY,ASSURED",
              "-t",        "600", "--dst-nat", "10.1.1.99"},
             there));
  const auto before = entries("fw2");
  ASSERT_THAT(before, SizeIs(1));
  const auto move = this->move("server2");
  EXPECT_FALSE(move.moved) << to_string(move);
  EXPECT_EQ(move.status, "cancelled");
  EXPECT_TRUE(poll_until(kPatience, [&] { return entries("fw2") == before; }));
  unwrap(run({"conntrack", "-D", "-p", "tcp", "--sport", port}, there));
  expect_whole("server1");
  EXPECT_LT(unwrap(tcp().report()).longest_stall_ms, 1000);
}

TEST_F(Qemu, DestinationAgentIsDead) {
  up(20, "{standby_ms: 1500, verdict_ms: 1000, no_verdict: cancel}");
  ASSERT_TRUE(lab_->kill_daemon("fw2", SIGKILL));
  const auto move = this->move("server2");
  EXPECT_FALSE(move.moved) << to_string(move);
  EXPECT_EQ(move.not_running_ms, 0) << "it was held while it ran: " << to_string(move);
  EXPECT_GT(move.total_ms, 1400) << to_string(move);
  ASSERT_TRUE(lab_->start_daemon("fw2"));
  expect_whole("server1");
  EXPECT_LT(unwrap(tcp().report()).longest_stall_ms, 1000);
}

TEST_F(Qemu, DestinationIsKilledAfterGo) {
  up(20);
  QemuMoveOptions options;
  options.on_reaching = [&](At at) {
    if (at != At::GoneOn) return;
    ASSERT_TRUE(guest_->kill_destination());
  };
  const auto move = this->move("server2", options);
  EXPECT_FALSE(move.moved) << to_string(move);
  EXPECT_EQ(move.status, "failed");
  expect_whole("server1");
  const auto again = this->move("server2");
  EXPECT_TRUE(again.moved) << to_string(again);
  expect_whole("server2");
}

TEST_F(Qemu, DestinationIsKilledWhileTheGuestIsPaused) {
  up(20, "{standby_ms: 30000, verdict_ms: 20000, no_verdict: continue}");
  QemuMoveOptions options;
  options.on_reaching = [&](At at) {
    if (at == At::Active) freeze_destination_at_standby();
    if (at != At::Paused) return;
    ASSERT_TRUE(guest_->kill_destination());
  };
  const auto move = this->move("server2", options);
  EXPECT_FALSE(move.moved) << to_string(move);
  thaw_destination();
  EXPECT_EQ(move.status, "cancelled") << "noticed by the gate, not by QEMU";
  EXPECT_LT(move.not_running_ms, 2000) << to_string(move);
  expect_whole("server1");
}

// What pause-before-switchover costs: until the daemon is back nobody continues. It finds the paused guest and goes on.
TEST_F(Qemu, GateIsKilledWhileTheGuestIsPaused) {
  up(20, "{standby_ms: 30000, verdict_ms: 20000, no_verdict: cancel}");
  QemuMoveOptions options;
  options.on_reaching = [&](At at) {
    if (at == At::Active) freeze_destination_at_standby();
    if (at != At::Paused) return;
    ASSERT_TRUE(lab_->kill_daemon("tde1", SIGKILL));
    thaw_destination();
    const auto again = lab_->start_daemon("tde1");
    ASSERT_TRUE(again) << again.error().message;
  };
  const auto move = this->move("server2", options);
  // Two verdicts are right: the agent was frozen, and the master may have given up waiting for it.
  EXPECT_EQ(move.status, move.moved ? "completed" : "cancelled") << to_string(move);
  EXPECT_LT(move.not_running_ms, 15000) << to_string(move);
  expect_whole(move.moved ? "server2" : "server1");
}

class QemuOperator : public Qemu, public ::testing::WithParamInterface<At> {};

TEST_P(QemuOperator, CancelsTheMigration) {
  up(20);
  QemuMoveOptions options;
  options.on_reaching = [&](At at) {
    if (at == At::Active && GetParam() == At::Paused) freeze_destination_at_standby();
    if (at != GetParam()) return;
    ASSERT_TRUE(guest_->cancel());
    if (at == At::Paused) thaw_destination();
  };
  const auto move = this->move("server2", options);
  if (GetParam() != At::GoneOn) {  // after that it may be too late
    EXPECT_EQ(move.status, "cancelled") << to_string(move);
  }
  expect_whole(move.moved ? "server2" : "server1");
  const auto next = this->move(move.moved ? "server1" : "server2");
  EXPECT_TRUE(next.moved) << to_string(next);
  expect_whole(guest_->server());
}

INSTANTIATE_TEST_SUITE_P(InEachPhase, QemuOperator, ::testing::Values(At::Active, At::Paused, At::GoneOn),
                         [](const auto& tested) {
                           return tested.param == At::Active   ? "active"
                                  : tested.param == At::Paused ? "paused"
                                                               : "device";
                         });

}  // namespace
}  // namespace sami::lab
