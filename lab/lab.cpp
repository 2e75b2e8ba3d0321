#include "lab/lab.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "lab/announce.h"
#include "lab/daemons.h"
#include "lab/namespace.h"
#include "lab/poll.h"

namespace sami::lab {
namespace {

namespace fs = std::filesystem;

std::string state_file(const std::string& name) { return fmt::format("{}/{}/lab.json", labs_folder(), name); }

Result<void> check_name(const std::string& name) {
  const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  if (name.empty() || name.size() > 24 || !std::all_of(name.begin(), name.end(), allowed)) {
    return failure(ErrorKind::InvalidInput, fmt::format("lab name '{}': expected 1 to 24 of a-z, 0-9 and '-'", name));
  }
  return {};
}

std::vector<std::string> node_names(const Topology& topology) {
  std::vector<std::string> names;
  for (const auto& node : topology.nodes) names.push_back(node.name);
  return names;
}

// Processes of a daemon program that work on files of this lab, whoever recorded them.
std::vector<ProcessIdentity> processes_of(const std::string& lab_folder, const std::vector<std::string>& namespaces) {
  std::vector<ProcessIdentity> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename().string();
    const int pid = static_cast<int>(std::strtol(name.c_str(), nullptr, 10));
    if (pid <= 0) continue;
    const auto inside = namespace_identity_of_process(pid);
    const bool ours = std::any_of(namespaces.begin(), namespaces.end(), [&](const std::string& one) {
      return inside != 0 && namespace_identity(one) == inside;
    });
    if (!ours) continue;
    std::ifstream file(entry.path() / "cmdline");
    const std::string line((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (line.find(lab_folder + "/") == std::string::npos) continue;
    if (auto identity = identify_process(pid)) found.push_back(*identity);
  }
  return found;
}

}  // namespace

std::string labs_folder() {
  const char* chosen = std::getenv("SAMI_LAB_FOLDER");
  return chosen != nullptr && *chosen != '\0' ? chosen : "/run/sami-lab";
}

std::string programs_folder() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path().string();
}

Lab::Lab(LabState state, std::string binaries)
    : state_(std::move(state)),
      topology_(usecase1::topology({state_.nat, state_.qemu})),
      binaries_(binaries.empty() ? programs_folder() : std::move(binaries)) {}

Result<Lab> Lab::up(const LabOptions& options) {
  if (auto valid = check_name(options.name); !valid) return tl::unexpected(valid.error());
  LabState state;
  state.name = options.name;
  state.nat = options.nat;
  state.qemu = options.qemu;
  state.gate = options.gate;
  state.with_sami = options.with_sami;
  for (const auto& vm : usecase1::vms()) state.places[vm.name] = vm.placements.front().server;
  Lab lab(std::move(state), options.binaries);
  lab.state_.nodes = node_names(lab.topology_);

  std::error_code reason;
  fs::create_directories(labs_folder(), reason);
  if (!fs::create_directory(lab.folder(), reason)) {
    if (reason) return failure(ErrorKind::Failed, fmt::format("cannot make {}: {}", lab.folder(), reason.message()));
    return failure(ErrorKind::InvalidInput,
                   fmt::format("lab {0} exists; `sami-lab down {0}` removes it", options.name));
  }
  fs::permissions(lab.folder(), fs::perms::owner_all, reason);
  fs::create_directory(lab.folder() + "/qmp", reason);
  auto built = lab.build();
  if (built) return lab;
  auto error = built.error();
  if (auto removed = down(options.name); !removed) error.message += "; and then: " + removed.error().message;
  return tl::unexpected(error);
}

Result<void> Lab::build() {
  if (auto saved = save_state(); !saved) return saved;
  if (auto built = build_topology(state_.name, topology_); !built) return built;
  for (const auto& vm : usecase1::vms()) {
    for (const auto& [server, port, firewall] : vm.placements) {
      auto done = server == place_of(vm.name) ? announce(vm.name, server) : withdraw(vm.name, server);
      if (!done) return done;
    }
  }
  if (state_.with_sami) {
    auto prepared = prepare_daemons(*this);
    if (!prepared) return tl::unexpected(prepared.error());
    state_.daemons = *prepared;
    for (const auto& one : *prepared) {
      if (auto started = start_daemon(one.name); !started) return started;
    }
    if (auto ready = wait_until_connected(*this); !ready) return ready;
  }
  state_.complete = true;
  return save_state();
}

Result<Lab> Lab::open(const std::string& name) {
  if (auto valid = check_name(name); !valid) return tl::unexpected(valid.error());
  if (!fs::exists(state_file(name))) return failure(ErrorKind::InvalidInput, fmt::format("there is no lab {}", name));
  auto state = load(state_file(name));
  if (!state) return tl::unexpected(state.error());
  return Lab(*state, "");
}

Result<void> Lab::down(const std::string& name) {
  if (auto valid = check_name(name); !valid) return valid;
  const std::string folder = fmt::format("{}/{}", labs_folder(), name);
  // A lab whose state was lost is a use case 1 as far as names go.
  auto nodes = node_names(usecase1::topology({}));
  auto state = load(state_file(name));
  if (state && !state->nodes.empty()) nodes = state->nodes;
  std::vector<std::string> namespaces;
  for (const auto& node : nodes) namespaces.push_back(namespace_name(name, node));
  const bool exists = fs::exists(folder) || std::any_of(namespaces.begin(), namespaces.end(), namespace_exists);
  if (!exists) return failure(ErrorKind::InvalidInput, fmt::format("there is no lab {}", name));

  Result<void> outcome;
  const auto note = [&](Result<void> done) {
    if (!done && outcome) outcome = done;
  };
  std::vector<ProcessIdentity> processes;
  if (state) {
    for (const auto& daemon : state->daemons) processes.push_back(daemon.process);
  }
  const auto stray = processes_of(folder, namespaces);
  processes.insert(processes.end(), stray.begin(), stray.end());
  for (const auto& process : processes) note(signal_process(process, SIGTERM));
  for (const auto& process : processes) note(stop_process(process));
  note(remove_topology(name, nodes));
  std::error_code reason;
  fs::remove_all(folder, reason);
  if (reason) note(failure(ErrorKind::Failed, fmt::format("cannot remove {}: {}", folder, reason.message())));
  return outcome;
}

std::vector<std::string> Lab::list() {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(labs_folder(), ignored)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string Lab::folder() const { return fmt::format("{}/{}", labs_folder(), state_.name); }

std::string Lab::namespace_of(const std::string& node) const { return namespace_name(state_.name, node); }

Result<void> Lab::save_state() const { return save(state_, state_file(state_.name)); }

Result<LabVm> Lab::find_vm(const std::string& vm) const {
  const auto all = usecase1::vms();
  const auto found = std::find_if(all.begin(), all.end(), [&](const LabVm& one) { return one.name == vm; });
  if (found != all.end()) return *found;
  return failure(ErrorKind::InvalidInput, fmt::format("there is no VM '{}'; expected vm1, vm2 or vm3", vm));
}

Result<LabVm::Placement> Lab::placement(const std::string& vm, const std::string& server) const {
  auto known = find_vm(vm);
  if (!known) return tl::unexpected(known.error());
  std::vector<std::string> possible;
  for (const auto& one : known->placements) {
    if (one.server == server) return one;
    possible.push_back(one.server);
  }
  return failure(ErrorKind::InvalidInput,
                 fmt::format("{} cannot run on '{}'; expected {}", vm, server, fmt::join(possible, " or ")));
}

std::string Lab::place_of(const std::string& vm) const {
  const auto found = state_.places.find(vm);
  return found == state_.places.end() ? "" : found->second;
}

Result<void> Lab::detach(const std::string& vm) {
  auto known = find_vm(vm);
  if (!known) return tl::unexpected(known.error());
  for (const auto& one : known->placements) {
    auto done = ip_batch(namespace_of(one.server), {fmt::format("link set {} down", one.port)});
    if (!done) return done;
  }
  return {};
}

Result<void> Lab::attach(const std::string& vm, const std::string& server) {
  auto where = placement(vm, server);
  if (!where) return tl::unexpected(where.error());
  auto done = ip_batch(namespace_of(server), {fmt::format("link set {} up", where->port)});
  if (!done) return done;
  state_.places[vm] = server;
  if (auto saved = save_state(); !saved) return saved;
  if (auto up = wait_until_running(namespace_of(server), where->port); !up) return up;
  if (auto up = wait_until_running(namespace_of(vm), "eth0"); !up) return up;
  return announce_addresses(namespace_of(vm), {{"eth0", find_vm(vm)->address}});
}

Result<void> Lab::announce(const std::string& vm, const std::string& server) {
  auto where = placement(vm, server);
  if (!where) return tl::unexpected(where.error());
  if (where->firewall.empty()) return {};
  const auto commands = usecase1::announcement({state_.nat, state_.qemu}, *find_vm(vm));
  if (auto done = ip_batch(namespace_of(where->firewall), commands.announce); !done) return done;
  return announce_addresses(namespace_of(where->firewall), commands.gratuitous);
}

Result<void> Lab::withdraw(const std::string& vm, const std::string& server) {
  auto where = placement(vm, server);
  if (!where) return tl::unexpected(where.error());
  if (where->firewall.empty()) return {};
  return ip_batch(namespace_of(where->firewall),
                  usecase1::announcement({state_.nat, state_.qemu}, *find_vm(vm)).withdraw);
}

Result<void> Lab::set_loss(int percent) {
  if (percent < 0 || percent > 100) {
    return failure(ErrorKind::InvalidInput, fmt::format("loss {}: expected 0 to 100 percent", percent));
  }
  return load_ruleset(namespace_of("core"), usecase1::loss_ruleset(percent));
}

Result<DaemonRecord> Lab::daemon(const std::string& name) const {
  for (const auto& one : state_.daemons) {
    if (one.name == name) return one;
  }
  return failure(ErrorKind::InvalidInput, fmt::format("lab {} has no daemon '{}'", state_.name, name));
}

Result<void> Lab::start_daemon(const std::string& name) {
  for (auto& one : state_.daemons) {
    if (one.name != name) continue;
    auto started = lab::start_daemon({fmt::format("{}/{}", binaries_, one.program), "--config", one.config},
                                     namespace_of(one.node), one.log);
    if (!started) return tl::unexpected(started.error());
    one.process = *started;
    if (auto saved = save_state(); !saved) return saved;
    return wait_until_ready(one);
  }
  return failure(ErrorKind::InvalidInput, fmt::format("lab {} has no daemon '{}'", state_.name, name));
}

Result<void> Lab::kill_daemon(const std::string& name, int signal) {
  auto one = daemon(name);
  if (!one) return tl::unexpected(one.error());
  if (auto sent = signal_process(one->process, signal); !sent) return sent;
  if (poll_until(milliseconds(10000), [&] { return !is_running(one->process); })) return {};
  return failure(ErrorKind::Failed, fmt::format("{} (process {}) does not end", name, one->process.pid));
}

}  // namespace sami::lab
