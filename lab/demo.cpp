#include "lab/demo.h"

#include <fmt/format.h>
#include <unistd.h>

#include "lab/checks.h"
#include "lab/gate_client.h"
#include "lab/lab.h"
#include "lab/print.h"
#include "lab/traffic.h"

namespace sami::lab {
namespace {

constexpr std::chrono::milliseconds kLookFor{5000};

std::string arm_as_json(const DemoArm& arm) {
  return fmt::format(
      R"({{"survived": {}, "connections": {}, "broken": {}, "longest_stall_ms": {:.0f}, "invalid_packets": {}, )"
      R"("paused_ms": {:.0f}}})",
      arm.survived, arm.connections, arm.broken, arm.longest_stall_ms, arm.invalid_packets,
      arm.move.paused_milliseconds);
}

std::string arm_as_text(const DemoArm& arm) {
  return fmt::format("{}  {} of {} connections, longest stall {:.0f} ms, {} packets dropped as INVALID\n",
                     arm.survived ? "They live: " : "They die:  ", arm.survived ? arm.connections : 0, arm.connections,
                     arm.longest_stall_ms, arm.invalid_packets);
}

Result<DemoArm> move_under_traffic(Lab& lab, const DemoOptions& options) {
  const auto who = usecase1::conversants(options.nat);
  auto server = Traffic::start(
      {TrafficKind::TcpServer, lab.namespace_of(who.server), "0.0.0.0", usecase1::kServicePort}, lab.binaries());
  if (!server) return tl::unexpected(server.error());
  auto client = Traffic::start(
      {TrafficKind::TcpEcho, lab.namespace_of(who.client), who.server_address, who.port, options.connections, 10, 200},
      lab.binaries());
  if (!client) return tl::unexpected(client.error());
  if (auto open = client->wait_until_established(); !open) return tl::unexpected(open.error());
  if (auto runs = client->wait_for_progress(20); !runs) return tl::unexpected(runs.error());

  std::unique_ptr<GateClient> gate;
  MoveOptions move_options;
  move_options.with_sami = lab.state().with_sami;
  if (auto tde = lab.daemon("tde1")) gate = make_gate_client(tde->control_socket);
  auto moved = LabHypervisor(lab, gate.get()).move("vm1", "server2", move_options);
  if (!moved) return tl::unexpected(moved.error());
  const bool progress = client->wait_for_progress(20, kLookFor).has_value();
  const auto report = client->stop();
  if (!report) return tl::unexpected(report.error());

  DemoArm arm;
  arm.survived = progress && report->broken == 0 && moved->moved;
  arm.connections = report->connections;
  arm.broken = report->broken;
  arm.longest_stall_ms = report->longest_stall_ms;
  arm.move = *moved;
  for (const auto& firewall : usecase1::firewalls()) {
    const auto counters = firewall_counters(lab.namespace_of(firewall));
    if (!counters) return tl::unexpected(counters.error());
    arm.invalid_packets += counters->at("invalid");
  }
  return arm;
}

}  // namespace

Result<DemoArm> run_demo_arm(bool with_sami, const DemoOptions& options) {
  LabOptions lab_options;
  lab_options.name = fmt::format("demo-{}-{}", ::getpid(), with_sami ? "with" : "without");
  lab_options.nat = options.nat;
  lab_options.with_sami = with_sami;
  auto lab = Lab::up(lab_options);
  if (!lab) return tl::unexpected(lab.error());
  auto arm = move_under_traffic(*lab, options);
  if (auto down = Lab::down(lab_options.name); !down && arm) return tl::unexpected(down.error());
  return arm;
}

std::string demo_as_text(const DemoArm& without, const DemoArm& with) {
  return fmt::format(
      "vm1 talks to vm3 through fw1, then moves to server2, whose path goes through fw2. The firewalls share no "
      "state.\n"
      "\nWithout SAMI\n{}{}\nWith SAMI\n{}{}",
      move_as_text(without.move), arm_as_text(without), move_as_text(with.move), arm_as_text(with));
}

std::string demo_as_json(const DemoArm& without, const DemoArm& with) {
  return fmt::format(R"({{"without": {}, "with": {}}})", arm_as_json(without), arm_as_json(with));
}

}  // namespace sami::lab
