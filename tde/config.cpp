#include "tde/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "interfaces/transport/pki.h"
#include "runtime/notify.h"

namespace sami::tde {
namespace {

constexpr std::size_t kMaximumInventory = 900 * 1024;  // it is one message, of at most 1 MiB

// Parts of the description by the name that the topology gives back when it finds a contradiction.
struct Part {
  Section* section = nullptr;
  std::string key;
};
using Parts = std::map<std::string, Part>;

void read_interface(Section& section, common::Interface& interface) {
  interface.set_vn_name(section.text("vn"));
  interface.set_vnid(static_cast<std::uint32_t>(section.integer("vnid", {0, 0xffffff}, 0)));
  interface.set_mac(section.mac("mac"));
  for (const auto& address : section.addresses("addresses")) interface.add_addresses(address);
  for (const auto& prefix : section.prefixes("learned_within")) *interface.add_learned_within() = to_message(prefix);
  if (interface.addresses().empty() && interface.learned_within().empty()) {
    section.reject("addresses", "no address", "at least one in addresses or learned_within");
  }
  if (interface.addresses_size() > 64) section.reject("addresses", "more than 64", "at most 64 addresses");
  Section& attachment = section.section("attachment");
  for (const auto& host : attachment.keys()) (*interface.mutable_attachment())[host] = attachment.text(host);
}

TopologyDescription::Vm read_vm(Section& section, std::string where) {
  TopologyDescription::Vm vm;
  vm.where = std::move(where);
  vm.subject.set_id(section.text("id"));
  if (vm.subject.id().size() > 128) section.reject("id", "a longer text", "at most 128 characters");
  vm.subject.set_kind(section.choice<common::SubjectKind>("kind",
                                                          {{"vm", common::SUBJECT_KIND_VM},
                                                           {"server", common::SUBJECT_KIND_SERVER},
                                                           {"appliance", common::SUBJECT_KIND_APPLIANCE}},
                                                          common::SUBJECT_KIND_VM));
  vm.server = section.text("server");
  const auto interfaces = section.sections("interfaces");
  for (Section* interface : interfaces) read_interface(*interface, *vm.subject.add_interfaces());
  if (interfaces.empty() || interfaces.size() > 32) {
    section.reject("interfaces", std::to_string(interfaces.size()), "1 to 32 interfaces");
  }
  return vm;
}

HostReference to_reference(Section& section, const std::string& text) {
  const std::size_t slash = text.find('/');
  HostReference reference{text.substr(0, slash), slash == std::string::npos ? "" : text.substr(slash + 1)};
  if (reference.host.empty() || (slash != std::string::npos && reference.context.empty()) ||
      reference.context.find('/') != std::string::npos) {
    section.reject("through", text, "\"host\" or \"host/context\"");
  }
  if (reference.context == "default") reference.context.clear();
  return reference;
}

TopologyDescription::Path read_path(Section& section, std::string where) {
  TopologyDescription::Path path;
  path.where = std::move(where);
  path.server = section.text("server");
  for (const auto& prefix : section.prefixes("to")) path.to.push_back(to_message(prefix));
  if (path.to.empty()) section.reject("to", "no prefix", "at least one; 0.0.0.0/0 is every IPv4 peer");
  for (const auto& host : section.texts("through", {})) path.through.push_back(to_reference(section, host));
  return path;
}

TopologyDescription read_topology(Section& section, Parts& parts) {
  TopologyDescription description;
  const auto part = [&parts](std::string_view list, std::size_t index, Section* at, std::string_view key) {
    std::string where = fmt::format("{}[{}]", list, index);
    parts[where] = Part{at, std::string(key)};
    return where;
  };
  for (const auto& name : section.texts("servers")) {
    description.servers.push_back({name, part("servers", description.servers.size(), &section, "servers")});
  }
  for (Section* host : section.sections("state_hosts")) {
    const std::string where = part("state_hosts", description.state_hosts.size(), host, "name");
    description.state_hosts.push_back({host->text("name"), host->texts("roles"), where});
  }
  for (Section* vm : section.sections("vms")) {
    description.vms.push_back(read_vm(*vm, part("vms", description.vms.size(), vm, "id")));
  }
  for (Section* path : section.sections("paths")) {
    description.paths.push_back(read_path(*path, part("paths", description.paths.size(), path, "to")));
  }
  return description;
}

protocol::GateConfig read_gate(Section& section) {
  protocol::GateConfig gate;
  gate.standby_deadline = section.milliseconds("standby_ms", {1, 86'400'000}, 300'000);
  gate.verdict_deadline = section.milliseconds("verdict_ms", {1, 600'000}, 3'000);
  gate.no_verdict = section.choice<protocol::NoVerdictPolicy>(
      "no_verdict", {{"cancel", protocol::NoVerdictPolicy::Cancel}, {"continue", protocol::NoVerdictPolicy::Continue}},
      protocol::NoVerdictPolicy::Cancel);
  gate.software_version = SAMI_VERSION;
  return gate;
}

qemu::VirtualMachine read_virtual_machine(Section& section, const TopologyDescription& topology) {
  constexpr std::size_t kMaximumSocketPath = 107;  // sockaddr_un
  qemu::VirtualMachine vm;
  vm.subject_id = section.text("id");
  const bool known = std::any_of(topology.vms.begin(), topology.vms.end(),
                                 [&](const auto& one) { return one.subject.id() == vm.subject_id; });
  if (!known) section.reject("id", vm.subject_id, "a VM of topology.vms");
  Section& sockets = section.section("qmp");
  for (const auto& server : sockets.keys()) {
    const std::string path = sockets.path(server);
    const bool declared = std::any_of(topology.servers.begin(), topology.servers.end(),
                                      [&](const auto& one) { return one.name == server; });
    if (!declared) sockets.reject(server, server, "a server of topology.servers");
    if (path.size() > kMaximumSocketPath) sockets.reject(server, path, "at most 107 characters");
    vm.sockets[server] = path;
  }
  if (vm.sockets.size() < 2) {
    section.reject("qmp", fmt::format("{} sockets", vm.sockets.size()),
                   "one for every server where it may run: two or more");
  }
  return vm;
}

// The VMs whose QEMUs this TDE watches by itself.
qemu::Config read_hypervisors(Section& section, const TopologyDescription& topology) {
  constexpr std::int64_t kMaximumBandwidth = std::int64_t{1} << 50;
  qemu::Config config;
  config.precopy_bandwidth = section.integer("precopy_bandwidth", {4096, kMaximumBandwidth}, config.precopy_bandwidth);
  config.full_bandwidth = section.integer("full_bandwidth", {0, kMaximumBandwidth}, config.full_bandwidth);
  if (config.full_bandwidth != 0 && config.full_bandwidth <= config.precopy_bandwidth) {
    section.reject("full_bandwidth", std::to_string(config.full_bandwidth), "0, or more than precopy_bandwidth");
  }
  std::map<std::string, std::string> users;  // of a socket
  for (Section* one : section.sections("virtual_machines")) {
    auto vm = read_virtual_machine(*one, topology);
    for (const auto& [server, path] : vm.sockets) {
      const auto [user, first] = users.emplace(path, vm.subject_id + " on " + server);
      if (!first) one->reject("qmp", path, "a socket of its own; this one is that of " + user->second);
    }
    for (const auto& other : config.virtual_machines) {
      if (other.subject_id == vm.subject_id) one->reject("id", vm.subject_id, "each VM once");
    }
    config.virtual_machines.push_back(std::move(vm));
  }
  return config;
}

transport::ClientConfig read_client(Section& root) {
  transport::ClientConfig client;
  client.target = root.endpoint("master");
  client.master_name = root.text("master_name");
  Section& pki = root.section("pki");
  client.credentials = {pki.path("ca"), pki.path("certificate"), pki.path("key")};
  return client;
}

}  // namespace

Result<Settings> read_settings(Config& config) {
  Section& root = config.root();
  Parts parts;
  EntityConfig entity;
  entity.name = root.text("name");
  if (auto named = transport::check_name(entity.name); !named && !entity.name.empty()) {
    root.reject("name", entity.name, named.error().message);
  }
  const std::string domain = root.text("domain");
  entity.gate = read_gate(root.section("gate"));
  entity.gate.identity = transport::Identity{domain, "tde", entity.name}.uri();
  transport::ClientConfig client = read_client(root);
  const std::string state = root.path("state");
  const std::string control_socket = root.path("control_socket", "/run/sami/tde.sock");
  TopologyDescription description = read_topology(root.section("topology"), parts);
  qemu::Config hypervisors = read_hypervisors(root.section("hypervisors"), description);
  std::size_t inventory = 0;
  for (const auto& vm : description.vms) {
    entity.gate.subjects.push_back(vm.subject.id());
    inventory += vm.subject.ByteSizeLong() + vm.server.size() + 16;
  }
  if (inventory > kMaximumInventory) {
    root.reject("topology", fmt::format("{} VMs ({} octets)", description.vms.size(), inventory),
                fmt::format("at most {} octets of them; share them among several TDEs", kMaximumInventory));
  }
  const auto level = root.section("log").choice<LogLevel>("level",
                                                          {{"trace", LogLevel::Trace},
                                                           {"debug", LogLevel::Debug},
                                                           {"info", LogLevel::Info},
                                                           {"warning", LogLevel::Warning},
                                                           {"error", LogLevel::Error}},
                                                          LogLevel::Info);
  auto errors = config.errors();
  if (!errors.empty()) return failure(ErrorKind::InvalidInput, fmt::format("{}", fmt::join(errors, "\n")));
  auto topology = Topology::make(std::move(description));
  if (!topology) {
    const Part& part = parts.at(topology.error().where);
    part.section->reject(part.key, topology.error().found, topology.error().expected);
    return failure(ErrorKind::InvalidInput, fmt::format("{}", fmt::join(config.errors(), "\n")));
  }
  return Settings{
      domain, std::move(entity), std::move(*topology), std::move(hypervisors), std::move(client), state, control_socket,
      level};
}

Result<Settings> load_settings(const std::string& path) {
  Config config = Config::load(path);
  auto settings = read_settings(config);
  if (!settings) return settings;
  pki::check_configured(config, settings->client.credentials, settings->entity.gate.identity);
  if (const auto errors = config.errors(); !errors.empty())
    return failure(ErrorKind::InvalidInput, fmt::format("{}", fmt::join(errors, "\n")));
  return settings;
}

void reload(const std::string& path, Loop& loop, Log& log) {
  service_manager::reloading(loop.now());
  if (const auto settings = load_settings(path); settings) {
    log.set_level(settings->log_level);
    log.info("configuration read again: the log level is taken, anything else needs a restart");
  } else {
    log.error("configuration not taken", {Field(settings.error())});
  }
  service_manager::ready();
}

}  // namespace sami::tde
