#include "lab/store.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace sami::lab {
namespace {

using nlohmann::json;

json to_json(const DaemonRecord& daemon) {
  return {{"name", daemon.name},       {"program", daemon.program},
          {"node", daemon.node},       {"config", daemon.config},
          {"log", daemon.log},         {"control_socket", daemon.control_socket},
          {"pid", daemon.process.pid}, {"start_time", daemon.process.start_time}};
}

DaemonRecord daemon_from(const json& item) {
  DaemonRecord daemon;
  daemon.name = item.at("name");
  daemon.program = item.at("program");
  daemon.node = item.at("node");
  daemon.config = item.at("config");
  daemon.log = item.at("log");
  daemon.control_socket = item.at("control_socket");
  daemon.process = {item.at("pid").get<pid_t>(), item.at("start_time").get<std::uint64_t>()};
  return daemon;
}

LabState state_from(const json& all) {
  LabState state;
  state.name = all.at("name");
  state.usecase = all.at("usecase");
  const std::string nat = all.at("nat");
  const auto known = parse_nat(nat);
  if (!known) throw std::runtime_error("nat: unknown kind '" + nat + "'");
  state.nat = *known;
  state.qemu = all.value("qemu", false);
  state.gate = all.value("gate", "");
  state.with_sami = all.at("with_sami");
  state.complete = all.at("complete");
  state.nodes = all.at("nodes").get<std::vector<std::string>>();
  state.places = all.at("places").get<std::map<std::string, std::string>>();
  for (const auto& item : all.at("daemons")) state.daemons.push_back(daemon_from(item));
  return state;
}

}  // namespace

Result<void> save(const LabState& state, const std::string& file) {
  json all{{"name", state.name},          {"usecase", state.usecase},
           {"nat", to_string(state.nat)}, {"with_sami", state.with_sami},
           {"complete", state.complete},  {"nodes", state.nodes},
           {"places", state.places},      {"daemons", json::array()},
           {"qemu", state.qemu},          {"gate", state.gate}};
  for (const auto& daemon : state.daemons) all["daemons"].push_back(to_json(daemon));
  const std::string fresh = file + ".new";
  std::ofstream out(fresh, std::ios::trunc);
  out << all.dump(2) << '\n';
  out.close();
  std::error_code reason;
  if (out) std::filesystem::rename(fresh, file, reason);
  if (!out || reason) return failure(ErrorKind::Failed, fmt::format("cannot write {}: {}", file, reason.message()));
  return {};
}

Result<LabState> load(const std::string& file) {
  std::ifstream in(file);
  if (!in) return failure(ErrorKind::InvalidInput, fmt::format("cannot read {}", file));
  try {
    return state_from(json::parse(in));
  } catch (const std::exception& problem) {
    return failure(ErrorKind::Corrupt, fmt::format("{}: expected the state of a lab: {}", file, problem.what()));
  }
}

}  // namespace sami::lab
