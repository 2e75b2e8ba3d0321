#include "lab/daemons.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "interfaces/transport/pki.h"
#include "lab/gate_client.h"
#include "lab/lab.h"
#include "lab/poll.h"

namespace sami::lab {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDomain = "lab.example";
constexpr const char* kMaster = "som1";
constexpr int kMasterPort = 7500;
constexpr std::uint32_t kCertificateDays = 30;

Result<void> write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::trunc);
  out << text;
  out.close();
  if (!out) return failure(ErrorKind::Failed, fmt::format("cannot write {}", path));
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  return {};
}

// What the three configurations have in common.
std::string common_part(const DaemonRecord& daemon, const std::string& folder) {
  return fmt::format(
      "name: {0}\n"
      "domain: {1}\n"
      "pki: {{ca: {2}/pki/ca.pem, certificate: {2}/pki/{0}.pem, key: {2}/pki/{0}.key}}\n"
      "state: {2}/{0}\n"
      "control_socket: {3}\n"
      "log: {{level: debug}}\n",
      daemon.name, kDomain, folder, daemon.control_socket);
}

std::string dialling_part() {
  return fmt::format("master: {}:{}\nmaster_name: {}\n", usecase1::kSomAddress, kMasterPort, kMaster);
}

std::string som_config(const DaemonRecord& daemon, const std::string& folder) {
  return common_part(daemon, folder) + fmt::format(R"(listen: {}:{}
classes:
  - {{name: connection_tracking, essential: true}}
tdes:
  - {{name: tde1, subjects: ["*"]}}
grace_ms: 200
)",
                                                   usecase1::kSomAddress, kMasterPort);
}

std::string soa_config(const DaemonRecord& daemon, const std::string& folder, Nat nat) {
  std::string text = common_part(daemon, folder) + dialling_part() +
                     "contexts:\n  - {name: default, zones: {blue: 0}}\nexternal_addresses:\n";
  for (const auto& external : usecase1::external_addresses(nat, daemon.name)) {
    text += fmt::format("  - {{address: {}, moves_with_subject: {}}}\n", external.address, external.moves_with_subject);
  }
  return text;
}

// The QMP sockets that are the gate's.
std::string hypervisors_part(const std::string& folder) {
  std::string text = "hypervisors:\n  virtual_machines:\n";
  for (const auto& vm : usecase1::vms()) {
    if (vm.placements.size() < 2) continue;
    text += fmt::format("    - {{id: {}, qmp: {{", vm.name);
    for (const auto& placement : vm.placements) {
      text += fmt::format("{}{}: {}/qmp/{}-{}.gate", text.back() == '{' ? "" : ", ", placement.server, folder,
                          placement.server, vm.name);
    }
    text += "}}\n";
  }
  return text;
}

std::string tde_config(const DaemonRecord& daemon, const std::string& folder, const LabState& state) {
  std::string text = common_part(daemon, folder) + dialling_part() + "gate: " +
                     (state.gate.empty() ? "{standby_ms: 60000, verdict_ms: 5000, no_verdict: cancel}" : state.gate) +
                     R"(
topology:
  servers: [server1, server2]
  state_hosts:
    - {name: fw1, roles: [firewall]}
    - {name: fw2, roles: [firewall]}
  vms:
)";
  for (const auto& vm : usecase1::vms()) {
    if (vm.placements.front().firewall.empty()) continue;
    text += fmt::format(
        "    - id: {}\n      server: {}\n      interfaces:\n"
        "        - {{vn: blue, vnid: 100, mac: \"{}\", addresses: [{}], attachment: {{",
        vm.name, vm.placements.front().server, vm.mac, vm.address);
    for (std::size_t i = 0; i < vm.placements.size(); ++i) {
      text += fmt::format("{}{}: {}", i == 0 ? "" : ", ", vm.placements[i].server, vm.placements[i].port);
    }
    text += "}}\n";
  }
  text += R"(  paths:
    - {server: server1, to: [10.1.2.0/24], through: [fw1]}
    - {server: server2, to: [10.1.2.0/24], through: [fw2, fw1]}
    - {server: server1, to: [0.0.0.0/0], through: [fw1]}
    - {server: server2, to: [0.0.0.0/0], through: [fw2]}
)";
  return state.qemu ? text + hypervisors_part(folder) : text;
}

Result<void> make_certificates(const std::string& folder) {
  if (auto made = pki::make_authority(folder, kDomain); !made) return tl::unexpected(made.error());
  const std::vector<std::pair<std::string, std::string>> identities{
      {"som", kMaster}, {"soa", "fw1"}, {"soa", "fw2"}, {"tde", "tde1"}, {"operator", "admin"}, {"viewer", "guest"}};
  for (const auto& [role, name] : identities) {
    const std::vector<std::string> hosts =
        role == "som" ? std::vector<std::string>{usecase1::kSomAddress} : std::vector<std::string>{};
    if (auto made = pki::issue(folder, role, name, kCertificateDays, hosts); !made) return tl::unexpected(made.error());
  }
  return {};
}

std::string end_of(const std::string& log) {
  constexpr std::size_t kShown = 2000;
  std::ifstream in(log);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return text.size() > kShown ? text.substr(text.size() - kShown) : text;
}

Error unready(const DaemonRecord& daemon, const std::string& why) {
  return Error{
      ErrorKind::Failed,
      fmt::format("{} ({}) {}; the end of {}:\n{}", daemon.name, daemon.program, why, daemon.log, end_of(daemon.log)),
      0};
}

}  // namespace

Result<std::vector<DaemonRecord>> prepare_daemons(const Lab& lab) {
  const std::string folder = lab.folder();
  if (auto made = make_certificates(folder + "/pki"); !made) return tl::unexpected(made.error());
  const std::vector<std::array<std::string, 3>> wanted{{kMaster, "sami-som", "som"},
                                                       {"fw1", "sami-soa", "fw1"},
                                                       {"fw2", "sami-soa", "fw2"},
                                                       {"tde1", "sami-tde", "tde"}};
  std::vector<DaemonRecord> daemons;
  for (const auto& [name, program, node] : wanted) {
    if (!fs::exists(fmt::format("{}/{}", lab.binaries(), program))) {
      return failure(ErrorKind::Unsupported, fmt::format("there is no {}/{}; use --no-sami", lab.binaries(), program));
    }
    const std::string base = fmt::format("{}/{}", folder, name);
    DaemonRecord daemon{name, program, node, base + ".yaml", base + ".sock", base + ".log", {}};
    std::error_code ignored;
    fs::create_directory(base, ignored);
    std::string config = program == "sami-som"   ? som_config(daemon, folder)
                         : program == "sami-soa" ? soa_config(daemon, folder, lab.state().nat)
                                                 : tde_config(daemon, folder, lab.state());
    if (auto written = write_file(daemon.config, config); !written) return tl::unexpected(written.error());
    daemons.push_back(std::move(daemon));
  }
  return daemons;
}

Result<void> wait_until_ready(const DaemonRecord& daemon, std::chrono::milliseconds deadline) {
  std::string why = "does not answer on " + daemon.control_socket;
  const bool ended_or_ready = poll_until(
      deadline,
      [&] {
        if (!is_running(daemon.process)) return true;
        return fs::exists(daemon.control_socket) && ask_status(daemon.program, daemon.control_socket).has_value();
      },
      milliseconds(20));
  if (!is_running(daemon.process)) why = "has ended";
  if (ended_or_ready && is_running(daemon.process)) return {};
  return tl::unexpected(unready(daemon, why));
}

Result<void> wait_until_connected(const Lab& lab, std::chrono::milliseconds deadline) {
  for (const auto& daemon : lab.state().daemons) {
    if (daemon.program == "sami-som") continue;
    std::string why;
    const bool connected = poll_until(
        deadline,
        [&] {
          const auto status = ask_status(daemon.program, daemon.control_socket);
          why = status ? "is not connected to the master: " + status->last_error : status.error().message;
          return (status && status->connected) || !is_running(daemon.process);
        },
        milliseconds(20));
    if (!connected || !is_running(daemon.process)) return tl::unexpected(unready(daemon, why));
  }
  return {};
}

}  // namespace sami::lab
