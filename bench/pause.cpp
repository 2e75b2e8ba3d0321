// How long the SOM takes from PAUSED to its verdict, with the shipped daemons over mTLS in the lab: a VM whose flows
// were copied while it ran, of which some have changed since. Each run is announced, paused, voted on and cancelled.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/support/flows.h"
#include "bench/support/percentiles.h"
#include "lab/gate_client.h"
#include "lab/lab.h"
#include "lab/process.h"

namespace sami::bench {
namespace {

constexpr const char* kVm = "vm1";
constexpr const char* kAddress = "10.1.1.10";
constexpr std::chrono::milliseconds kDeadline{60000};

struct Point {
  std::size_t table = 0, flows = 0, dirty = 0;
  std::vector<double> verdict_ms;                         // PAUSED to vote, at the SOM
  std::vector<double> gate_ms;                            // as the hypervisor sees it
  std::map<std::string, std::vector<double>> by_step_ms;  // of the timeline, since PAUSED
  std::uint64_t resyncs = 0;
};

template <typename T>
T unwrap(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// Waits until the gate says one of these.
lab::GateStatus wait_for(lab::GateWatch& watch, const std::vector<std::string>& wanted) {
  for (;;) {
    auto status = unwrap(watch.next(kDeadline));
    if (std::find(wanted.begin(), wanted.end(), status.instruction) != wanted.end()) return status;
    if (status.instruction == "Refused") throw std::runtime_error("refused: " + status.detail);
  }
}

class Bench {
 public:
  explicit Bench(const std::string& name) : name_(name) {
    lab::LabOptions options;
    options.name = name;
    lab_.emplace(unwrap(lab::Lab::up(options)));
    gate_ = lab::make_gate_client(unwrap(lab_->daemon("tde1")).control_socket);
  }
  ~Bench() { (void)lab::Lab::down(name_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void fill(std::size_t table, std::size_t flows) {
    for (const auto* firewall : {"fw1", "fw2"}) unwrap(fill_table(lab_->namespace_of(firewall), table));
    talk_.emplace(
        unwrap(Conversation::between({lab_->namespace_of("vm1"), kAddress}, {lab_->namespace_of("vm3"), "10.9.3.30"})));
    unwrap(talk_->open(flows));
  }

  // Of the source, since it started.
  std::uint64_t resyncs() const {
    const auto status = nlohmann::json::parse(sami({"--soa-socket", socket("fw1"), "-o", "json", "status", "soa"}));
    return status.at("counters").value("resyncs", std::uint64_t{0});
  }

  void run(Point& point) {
    const std::string id = unwrap(gate_->announce(kVm, "server2", false));
    const auto watch = unwrap(gate_->watch(id));
    if (wait_for(*watch, {"MayPause", "Cancel"}).instruction != "MayPause") throw std::runtime_error("no standby");
    if (point.dirty > 0) unwrap(talk_->talk(point.dirty));
    const auto before = std::chrono::steady_clock::now();
    unwrap(gate_->notify(lab::GatePhase::Paused, id));
    const auto verdict = wait_for(*watch, {"Continue", "Cancel"});
    const std::chrono::duration<double, std::milli> waited = std::chrono::steady_clock::now() - before;
    unwrap(gate_->notify(lab::GatePhase::Cancelled, id));
    (void)wait_for(*watch, {"Concluded"});
    if (verdict.instruction != "Continue") throw std::runtime_error("the vote was NO_GO");
    point.gate_ms.push_back(waited.count());
    read_timeline(point, verdict.migration_id);
  }

 private:
  void read_timeline(Point& point, const std::string& migration) {
    const auto ended =
        nlohmann::json::parse(sami({"--som-socket", socket("som1"), "-o", "json", "migration", "show", migration}));
    for (const auto& transfer : ended.at("transfers")) {
      for (const auto& one : transfer.at("classes")) {
        if (one.at("result") != "CARRIED") throw std::runtime_error("not exact: " + one.dump());
      }
    }
    double paused = 0;
    for (const auto& entry : ended.at("timeline")) {
      const double at = entry.at("wall_microseconds").get<double>() / 1000;
      const auto what = entry.at("what").get<std::string>();
      if (what == "PAUSED") paused = at;
      if (paused == 0 || what.starts_with("CANCELLED") || what.starts_with("ROLL")) continue;
      point.by_step_ms[what].push_back(at - paused);
      if (what.starts_with("vote GO")) point.verdict_ms.push_back(at - paused);
    }
  }

  std::string socket(const std::string& daemon) const { return unwrap(lab_->daemon(daemon)).control_socket; }
  std::string sami(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), lab_->binaries() + "/sami");
    lab::RunOptions options;
    options.ignore_status = true;  // it tells how the migration ended
    return unwrap(lab::run(arguments, options)).output;
  }

  std::string name_;
  std::optional<lab::Lab> lab_;
  std::unique_ptr<lab::GateClient> gate_;
  std::optional<Conversation> talk_;
};

nlohmann::ordered_json shown(const Point& point) {
  nlohmann::ordered_json steps;
  for (const auto& [what, samples] : point.by_step_ms) steps[what] = percentile(samples, 50);
  return {{"table", point.table},
          {"vm_flows", point.flows},
          {"dirty", point.dirty},
          {"runs", point.verdict_ms.size()},
          {"p50_ms", percentile(point.verdict_ms, 50)},
          {"p95_ms", percentile(point.verdict_ms, 95)},
          {"p99_ms", percentile(point.verdict_ms, 99)},
          {"resyncs", point.resyncs},
          {"gate_p50_ms", percentile(point.gate_ms, 50)},
          {"steps_p50_ms", steps}};
}

Point measure(std::size_t table, std::size_t flows, std::size_t dirty, int runs) {
  Point point{table, flows, dirty, {}, {}, {}, 0};
  const Room room = unwrap(Room::for_entries(2 * (table + flows) + 100'000));
  Bench bench(fmt::format("pause-{}", ::getpid() % 100000));
  bench.fill(table, flows);
  for (int i = 0; i < runs; ++i) bench.run(point);
  point.resyncs = bench.resyncs();
  std::fprintf(stderr, "table %zu, %zu flows, %zu changed: %s\n", table, flows, dirty, shown(point).dump().c_str());
  return point;
}

}  // namespace
}  // namespace sami::bench

int main(int argc, char** argv) {
  CLI::App app{"PAUSED to verdict at the SOM"};
  bool json = false;
  int runs = 1000;
  std::vector<std::size_t> tables{10'000, 100'000, 1'000'000};
  std::size_t large = 100'000;
  app.add_flag("--json", json, "the last line is the result");
  app.add_option("--runs", runs, "per point; a tenth of it for the VM with many flows");
  app.add_option("--tables", tables, "entries of the hosts' tables");
  app.add_option("--large", large, "flows of the large VM; 0: leave it out");
  CLI11_PARSE(app, argc, argv);
  using namespace sami::bench;
  try {
    nlohmann::ordered_json points = nlohmann::ordered_json::array();
    std::vector<double> medians;
    for (const auto table : tables) {
      points.push_back(shown(measure(table, 1'000, 100, runs)));
      medians.push_back(points.back()["p50_ms"]);
    }
    if (large > 0) points.push_back(shown(measure(100'000, large, large / 100, std::max(1, runs / 10))));
    nlohmann::ordered_json result{{"points", points}};
    if (tables.front() == 10'000 && tables.back() == 1'000'000)
      result["growth_1M_over_10k"] = medians.back() / medians.front();
    std::printf("%s\n", result.dump(json ? -1 : 2).c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench-pause: %s\n", error.what());
    return 1;
  }
}
