#include "lab/print.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

namespace sami::lab {
namespace {

using nlohmann::ordered_json;

ordered_json daemon_json(const DaemonRecord& daemon) {
  return {{"name", daemon.name},       {"program", daemon.program},
          {"config", daemon.config},   {"control_socket", daemon.control_socket},
          {"pid", daemon.process.pid}, {"running", is_running(daemon.process)},
          {"log", daemon.log}};
}

const DaemonRecord* daemon_on(const Lab& lab, const std::string& node) {
  for (const auto& daemon : lab.state().daemons) {
    if (daemon.node == node) return &daemon;
  }
  return nullptr;
}

}  // namespace

std::string lab_as_json(const Lab& lab) {
  const auto& state = lab.state();
  ordered_json all{{"name", state.name},
                   {"usecase", state.usecase},
                   {"nat", to_string(state.nat)},
                   {"folder", lab.folder()},
                   {"with_sami", state.with_sami},
                   {"vms", ordered_json::array()},
                   {"nodes", ordered_json::array()}};
  for (const auto& vm : usecase1::vms()) {
    all["vms"].push_back(
        {{"name", vm.name}, {"address", vm.address}, {"mac", vm.mac}, {"server", lab.place_of(vm.name)}});
  }
  for (const auto& node : lab.topology().nodes) {
    ordered_json one{{"name", node.name},
                     {"role", node.role},
                     {"namespace", lab.namespace_of(node.name)},
                     {"addresses", lab.topology().addresses_of(node.name)}};
    if (const auto* daemon = daemon_on(lab, node.name)) one["daemon"] = daemon_json(*daemon);
    all["nodes"].push_back(one);
  }
  return all.dump(2);
}

std::string lab_as_text(const Lab& lab) {
  std::string text = fmt::format("{:<8} {:<28} {:<18} {:<64} {}\n", "NODE", "ROLE", "NAMESPACE", "ADDRESSES", "DAEMON");
  for (const auto& node : lab.topology().nodes) {
    const auto* daemon = daemon_on(lab, node.name);
    const std::string runs =
        daemon == nullptr ? ""
                          : fmt::format("{} pid {} socket {} config {} log {}", daemon->program, daemon->process.pid,
                                        daemon->control_socket, daemon->config, daemon->log);
    const std::string addresses = fmt::format("{}", fmt::join(lab.topology().addresses_of(node.name), " "));
    text += fmt::format("{:<8} {:<28} {:<18} {:<64} {}\n", node.name, node.role, lab.namespace_of(node.name), addresses,
                        runs);
  }
  text += "\n";
  for (const auto& vm : usecase1::vms()) {
    text += fmt::format("{} ({}) runs on {}\n", vm.name, vm.address, lab.place_of(vm.name));
  }
  return text;
}

std::string move_as_json(const MoveReport& report) {
  ordered_json all{{"vm", report.vm},
                   {"source", report.source},
                   {"destination", report.destination},
                   {"notification_id", report.notification_id},
                   {"migration_id", report.migration_id},
                   {"moved", report.moved},
                   {"instruction", report.instruction},
                   {"final_state", report.final_state},
                   {"detail", report.detail},
                   {"paused_ms", report.paused_milliseconds},
                   {"timeline", ordered_json::array()}};
  for (const auto& step : report.timeline) {
    all["timeline"].push_back({{"ms", step.milliseconds}, {"what", step.what}});
  }
  return all.dump(2);
}

std::string move_as_text(const MoveReport& report) {
  std::string text;
  for (const auto& step : report.timeline) text += fmt::format("{:>10.1f} ms  {}\n", step.milliseconds, step.what);
  const auto place = report.moved ? report.destination : report.source;
  const auto end =
      report.final_state.empty() ? "" : fmt::format("; migration {}: {}", report.migration_id, report.final_state);
  text +=
      fmt::format("{} runs on {}; it was paused for {:.1f} ms{}\n", report.vm, place, report.paused_milliseconds, end);
  return text;
}

}  // namespace sami::lab
