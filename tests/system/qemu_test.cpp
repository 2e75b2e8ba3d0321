// A real QEMU guest moves between two firewalls, and the gate of sami-tde stands in its live migration.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "lab/checks.h"
#include "lab/gate_client.h"
#include "lab/lab.h"
#include "lab/poll.h"
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
      for (const auto& daemon : lab_->state().daemons) {
        std::ifstream in(daemon.log);
        const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
        std::cerr << "---- " << daemon.log << "\n"
                  << text.substr(text.size() - std::min<std::size_t>(text.size(), 8000));
      }
    }
    const auto down = Lab::down(lab_->state().name);
    EXPECT_TRUE(down) << down.error().message;
    EXPECT_THAT(leftovers(lab_->state().name), IsEmpty());
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
    EXPECT_EQ(count(here, "invalid"), 0u);
    EXPECT_EQ(count(here, "new_dropped"), 0u);
  }

  GuestImage image_;
  std::optional<Lab> lab_;
  std::optional<QemuGuest> guest_;
  std::vector<Traffic> traffic_;
  int flows_ = 0;
};

TEST_F(Qemu, TcpAndUdpSurviveAMove) {
  up(0);
  const auto move = unwrap(guest_->move("server2"));
  EXPECT_TRUE(move.moved) << to_string(move);
  std::cerr << to_string(move);
  expect_whole("server2");
}

}  // namespace
}  // namespace sami::lab
