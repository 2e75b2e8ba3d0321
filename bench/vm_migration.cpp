// What a live migration costs the guest and its peers: real QEMU guests (TCG) with many flows that move to a server
// behind the same firewall, and behind another one with SAMI, with nothing, and with the conntrack command line between
// pre-switchover and continue. One migration of each arm per round, in turn, each with a fresh guest.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/support/percentiles.h"
#include "lab/checks.h"
#include "lab/lab.h"
#include "lab/poll.h"
#include "lab/process.h"
#include "lab/qemu.h"
#include "lab/traffic.h"

namespace sami::bench {
namespace {

using lab::QemuGuest;
using lab::QemuMove;
using lab::Traffic;
using lab::TrafficKind;

constexpr const char* kGuest = "10.1.1.10";
constexpr int kPort = 7001;
constexpr int kProbeInterval = 10;  // ms
constexpr int kFlowInterval = 4000;
constexpr std::chrono::milliseconds kPatience{30000};
constexpr std::chrono::milliseconds kDead{5000};  // a connection that says nothing for so long after a move

template <typename T>
T unwrap(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

struct Samples {
  std::vector<double> gate_ms, not_running_ms, tcp_gap_ms, udp_lost;
  int survived = 0;
  int rounds = 0;
};

nlohmann::ordered_json shown(const Samples& samples) {
  return {{"gate_ms_p50", percentile(samples.gate_ms, 50)},
          {"gate_ms_p95", percentile(samples.gate_ms, 95)},
          {"not_running_ms_p50", percentile(samples.not_running_ms, 50)},
          {"tcp_gap_ms_p50", percentile(samples.tcp_gap_ms, 50)},
          {"udp_lost_p50", percentile(samples.udp_lost, 50)},
          {"survived", fmt::format("{}/{}", samples.survived, samples.rounds)}};
}

class Bench {
 public:
  Bench(const std::string& name, int flows) : name_(name), image_(unwrap(lab::guest_image())), flows_(flows) {
    lab::LabOptions options;
    options.name = name;
    options.qemu = true;
    lab_.emplace(unwrap(lab::Lab::up(options)));
  }
  ~Bench() { (void)lab::Lab::down(name_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void run(const std::string& arm, Samples& samples) {
    const std::string source = arm == "same_firewall" ? "server1" : sami_place_;
    const std::string destination = arm == "same_firewall" ? "server1" : source == "server1" ? "server2" : "server1";
    for (const auto* firewall : {"fw1", "fw2"}) in(firewall, {"conntrack", "-F"});
    auto guest = unwrap(QemuGuest::boot(*lab_, image_, {source, "tap0", arm == "sami"}));
    auto many = talk(TrafficKind::TcpEcho, flows_, kFlowInterval);
    auto tcp = talk(TrafficKind::TcpEcho, 1, kProbeInterval);
    auto udp = talk(TrafficKind::Udp, 1, kProbeInterval);
    unwrap(tcp.wait_for_progress(10, kPatience));

    lab::QemuMoveOptions options;
    options.port = arm == "same_firewall" ? "tap2" : "tap0";
    options.hold = arm == "cli";
    options.on_reaching = [&](lab::QemuMoveOptions::At at) {
      if (arm != "cli" || at != lab::QemuMoveOptions::At::Paused) return;
      copy(firewall_of(source), firewall_of(destination));
      unwrap(guest.go_on());
    };
    const QemuMove move = unwrap(guest.move(destination, options));
    if (!move.moved) throw std::runtime_error(arm + " did not move: " + lab::to_string(move));
    take(samples, arm, move, tcp, udp, many);
    if (arm != "sami") return;
    sami_place_ = destination;
    const auto released = [&] { return entries(firewall_of(source)).empty(); };
    if (!lab::poll_until(kPatience, released)) throw std::runtime_error("the source keeps its entries");
  }

 private:
  static std::string firewall_of(const std::string& server) { return server == "server1" ? "fw1" : "fw2"; }

  lab::RunResult in(const std::string& node, const std::vector<std::string>& words, const std::string& input = {}) {
    lab::RunOptions options;
    options.network_namespace = lab_->namespace_of(node);
    options.input = input;
    return unwrap(lab::run(words, options));
  }

  std::vector<std::string> entries(const std::string& firewall) const {
    return lab::mentioning(unwrap(lab::conntrack_entries(lab_->namespace_of(firewall))), kGuest);
  }

  Traffic talk(TrafficKind kind, int connections, int interval_ms) {
    auto traffic = unwrap(
        Traffic::start({kind, lab_->namespace_of("vm3"), kGuest, kPort, connections, interval_ms}, lab_->binaries()));
    unwrap(traffic.wait_until_established(kPatience));
    return traffic;
  }

  // As a script of an operator's would.
  void copy(const std::string& from, const std::string& to) {
    const std::string listed = in(from, {"conntrack", "-L", "-d", kGuest, "-o", "save"}).output;
    lab::RunOptions options;
    options.network_namespace = lab_->namespace_of(to);
    options.input = listed;
    options.ignore_status = true;  // it fails for each entry that it cannot take
    (void)lab::run({"conntrack", "-R", "-"}, options);
  }

  void take(Samples& samples, const std::string& arm, const QemuMove& move, Traffic& tcp, Traffic& udp, Traffic& many) {
    // Datagrams count as lost after a second.
    unwrap(udp.wait_for_progress(1500 / kProbeInterval, kPatience));
    const bool lives =
        tcp.wait_for_progress(5, kDead) && many.wait_for_progress(1, std::chrono::milliseconds(kFlowInterval) + kDead);
    const auto probe = unwrap(tcp.report());
    const bool all = lives && probe.broken == 0 && unwrap(many.report()).broken == 0;
    ++samples.rounds;
    samples.survived += all;
    if (move.gate_ms > 0) samples.gate_ms.push_back(move.gate_ms);
    samples.not_running_ms.push_back(move.not_running_ms);
    if (lives) samples.tcp_gap_ms.push_back(probe.longest_stall_ms);
    samples.udp_lost.push_back(static_cast<double>(unwrap(udp.report()).lost));
    std::fprintf(stderr, "%-14s gate %6.1f ms, not running %6.1f ms, longest TCP gap %7.1f ms, %.0f UDP lost, %s\n",
                 arm.c_str(), move.gate_ms, move.not_running_ms, probe.longest_stall_ms, samples.udp_lost.back(),
                 all ? "all live" : "broken");
  }

  std::string name_;
  lab::GuestImage image_;
  int flows_;
  std::optional<lab::Lab> lab_;
  std::string sami_place_ = "server1";  // where the TDE knows the guest; the other arms begin there, too
};

}  // namespace
}  // namespace sami::bench

int main(int argc, char** argv) {
  CLI::App app{"What a live migration between firewalls costs, with SAMI and without"};
  bool json = false;
  int rounds = 10;
  int flows = 1000;
  app.add_flag("--json", json, "the last line is the result");
  app.add_option("--rounds", rounds, "migrations of each arm");
  app.add_option("--flows", flows, "TCP connections of the guest, besides one that speaks every 10 ms");
  CLI11_PARSE(app, argc, argv);
  using namespace sami::bench;
  try {
    const std::vector<std::string> arms{"same_firewall", "sami", "no_sami", "cli"};
    std::map<std::string, Samples> samples;
    {
      Bench bench(fmt::format("vm-migration-{}", ::getpid() % 100000), flows);
      for (int round = 0; round < rounds; ++round) {
        for (const auto& arm : arms) bench.run(arm, samples[arm]);
      }
    }
    nlohmann::ordered_json result{{"rounds", rounds}, {"flows", flows}};
    for (const auto& arm : arms) result["arms"][arm] = shown(samples[arm]);
    std::printf("%s\n", json ? result.dump().c_str() : result.dump(2).c_str());
    return 0;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "bench: %s\n", problem.what());
    return 1;
  }
}
