#include "tests/system/system_test.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>

#include "lab/daemons.h"
#include "lab/poll.h"
#include "runtime/file.h"

namespace sami::lab {
namespace {

template <typename T>
T unwrap(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

void unwrap(const Result<void>& result) {
  if (!result) throw std::runtime_error(result.error().message);
}

void print_log(const DaemonRecord& daemon) {
  constexpr std::size_t kShown = 6000;
  std::ifstream in(daemon.log);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::cerr << "---- " << daemon.log << "\n"
            << (text.size() > kShown ? text.substr(text.size() - kShown) : text) << "\n";
}

}  // namespace

void SystemTest::SetUp() {
  if (::geteuid() != 0) GTEST_SKIP() << "network namespaces need root";
}

void SystemTest::TearDown() {
  gate_.reset();
  if (!lab_) return;
  if (HasFailure()) {
    for (const auto& daemon : lab_->state().daemons) print_log(daemon);
  }
  const auto down = Lab::down(lab_->state().name);
  EXPECT_TRUE(down) << down.error().message;
  EXPECT_THAT(leftovers(lab_->state().name), ::testing::IsEmpty());
}

void SystemTest::up(Nat nat) {
  LabOptions options;
  options.name = "system-" + std::to_string(::getpid());
  options.nat = nat;
  lab_ = unwrap(Lab::up(options));
  gate_ = make_gate_client(unwrap(lab_->daemon("tde1")).control_socket);
}

Conversers SystemTest::converse(const std::string& client_node, const std::string& server_node,
                                const std::string& address, int port, int server_port, TrafficKind kind,
                                int connections, int interval_ms, int bytes) {
  const auto server_kind = kind == TrafficKind::Udp ? TrafficKind::UdpServer : TrafficKind::TcpServer;
  auto server =
      unwrap(Traffic::start({server_kind, lab_->namespace_of(server_node), "0.0.0.0", server_port}, lab_->binaries()));
  auto client = unwrap(Traffic::start(
      {kind, lab_->namespace_of(client_node), address, port, connections, interval_ms, bytes}, lab_->binaries()));
  unwrap(client.wait_until_established());
  return {std::move(server), std::move(client)};
}

Conversers SystemTest::vm1_traffic(TrafficKind kind, int connections, int interval_ms, int bytes) {
  const auto who = usecase1::conversants(lab_->state().nat);
  return converse(who.client, who.server, who.server_address, who.port, usecase1::kServicePort, kind, connections,
                  interval_ms, bytes);
}

MoveReport SystemTest::move(const std::string& server, const MoveOptions& options) {
  return unwrap(LabHypervisor(*lab_, gate_.get()).move("vm1", server, options));
}

void SystemTest::reconfigure(const std::string& daemon, const std::string& text, const std::string& replaced) {
  unwrap(lab_->kill_daemon(daemon, SIGTERM));
  const std::string path = unwrap(lab_->daemon(daemon)).config;
  std::string config = unwrap(read_file(path, 1 << 20));
  const auto at = replaced.empty() ? config.size() : config.find(replaced);
  if (at == std::string::npos) throw std::runtime_error(path + " does not have: " + replaced);
  unwrap(write_file(path, config.replace(at, replaced.size(), text), 0600));
  unwrap(lab_->start_daemon(daemon));
  unwrap(wait_until_connected(*lab_));
}

std::string SystemTest::sami(const std::vector<std::string>& arguments) const {
  std::vector<std::string> line{lab_->binaries() + "/sami", "--som-socket", unwrap(lab_->daemon("som1")).control_socket,
                                "-o", "json"};
  line.insert(line.end(), arguments.begin(), arguments.end());
  RunOptions options;
  options.ignore_status = true;  // it tells how a migration ended
  return unwrap(run(line, options)).output;
}

void SystemTest::expect_whole(Conversers& traffic, int connections) {
  constexpr std::chrono::milliseconds kPatience{30000};
  const bool away = lab_->place_of("vm1") == "server2";
  const std::string here = away ? "fw2" : "fw1";
  const std::string there = away ? "fw1" : "fw2";
  EXPECT_TRUE(poll_until(kPatience, [&] { return entries(there).empty(); }));
  EXPECT_THAT(entries(there), ::testing::IsEmpty());
  EXPECT_THAT(entries(here), ::testing::SizeIs(static_cast<std::size_t>(connections)));
  const auto progress = traffic.client.wait_for_progress(10, kPatience);
  EXPECT_TRUE(progress) << progress.error().message;
  EXPECT_THAT(peers_of(traffic.server), ::testing::SizeIs(static_cast<std::size_t>(connections)));
  const auto last = traffic.client.stop();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->broken, 0) << to_string(*last);
  EXPECT_EQ(invalid_packets(), 0u);
}

std::vector<std::string> SystemTest::entries(const std::string& firewall) const {
  return unwrap(conntrack_entries(lab_->namespace_of(firewall)));
}

std::uint64_t SystemTest::invalid_packets() const {
  std::uint64_t sum = 0;
  for (const auto& firewall : usecase1::firewalls()) {
    sum += unwrap(firewall_counters(lab_->namespace_of(firewall))).at("invalid");
  }
  return sum;
}

std::uint64_t SystemTest::dropped_as_new() const {
  std::uint64_t sum = 0;
  for (const auto& firewall : usecase1::firewalls()) {
    sum += unwrap(firewall_counters(lab_->namespace_of(firewall))).at("new_dropped");
  }
  return sum;
}

std::vector<std::string> peers_of(Traffic& server) {
  auto peers = unwrap(server.report()).peers;
  std::sort(peers.begin(), peers.end());
  return peers;
}

}  // namespace sami::lab
