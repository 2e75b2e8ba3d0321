#include "soa/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <set>

#include "interfaces/transport/pki.h"
#include "runtime/notify.h"

namespace sami::soa {
namespace {

namespace if_m_a = ::sami::if_m_a::v1;

void read_context(Section& section, std::set<std::string>& names, if_m_a::Register& profile) {
  auto* context = profile.add_contexts();
  context->set_name(section.text("name"));
  if (!names.insert(context->name()).second) section.reject("name", context->name(), "each context once");
  Section& zones = section.section("zones");
  for (const auto& vn : zones.keys()) {
    const auto zone = static_cast<std::uint32_t>(zones.integer(vn, {0, 65'535}));
    (*context->mutable_vn_zone())[vn] = zone;
  }
  if (context->vn_zone().empty()) section.reject("zones", "none", "at least one {virtual network: conntrack zone}");
}

void read_external_address(Section& section, std::set<std::string>& addresses, if_m_a::Register& profile) {
  auto* external = profile.add_external_addresses();
  external->set_address(section.address("address"));
  external->set_moves_with_subject(section.boolean("moves_with_subject", false));
  if (!addresses.insert(external->address()).second) {
    section.reject("address", "the same address again", "each address once");
  }
}

protocol::SoaConfig read_machine(Section& root) {
  protocol::SoaConfig machine;
  machine.host = root.text("name");
  machine.software_version = SAMI_VERSION;
  machine.profile.set_host(machine.host);
  std::set<std::string> contexts, addresses;
  for (Section* context : root.sections("contexts")) read_context(*context, contexts, machine.profile);
  if (contexts.empty() && !root.keys().empty())
    root.reject("contexts", "none", "at least one; {name: default, zones: {...}} on a simple host");
  for (Section* external : root.sections("external_addresses")) {
    read_external_address(*external, addresses, machine.profile);
  }
  Section& limits = root.section("limits");
  machine.max_open_transfers = static_cast<std::uint32_t>(limits.integer("transfers", {1, 65'536}, 256));
  machine.max_records_per_transfer =
      static_cast<std::uint64_t>(limits.integer("records_per_transfer", {1, 100'000'000}, 1'000'000));
  machine.profile.set_max_concurrent_transfers(machine.max_open_transfers);
  return machine;
}

// Contexts and external addresses are the host's, said once.
state::ConnectionTrackingConfig read_connection_tracking(Section& section, const if_m_a::Register& profile) {
  state::ConnectionTrackingConfig tracking;
  tracking.capacity = static_cast<std::uint64_t>(section.integer("capacity", {1, 100'000'000}, 200'000));
  tracking.hold_seconds = static_cast<std::uint32_t>(section.integer("hold_seconds", {10, 86'400}, 3'600));
  for (const auto& context : profile.contexts()) {
    for (const auto& [vn, zone] : context.vn_zone()) {
      tracking.contexts[context.name()][vn] = static_cast<std::uint16_t>(zone);
    }
  }
  for (const auto& external : profile.external_addresses()) {
    auto& address = tracking.external_addresses.emplace_back();
    const std::string& octets = external.address();
    address.address.family = octets.size() == 4 ? AF_INET : AF_INET6;
    std::copy(octets.begin(), octets.end(), address.address.octets.begin());
    address.moves_with_subject = external.moves_with_subject();
  }
  return tracking;
}

// Addresses of this network namespace that a peer could use.
std::vector<std::string> local_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    const int family = entry->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::array<char, NI_MAXHOST> text{};
    if (::getnameinfo(entry->ifa_addr, size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0) {
      addresses.emplace_back(text.data());
    }
  }
  ::freeifaddrs(list);
  return addresses;
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
  Settings settings;
  settings.domain = root.text("domain");
  settings.agent.machine = read_machine(root);
  const std::string& name = settings.agent.machine.host;
  if (auto named = transport::check_name(name); !named && !name.empty()) {
    root.reject("name", name, named.error().message);
  }
  settings.agent.machine.identity = transport::Identity{settings.domain, "soa", name}.uri();
  settings.client = read_client(root);
  settings.state = root.path("state");
  settings.control_socket = root.path("control_socket", "/run/sami/soa.sock");
  Section& tracking = root.section("classes").section("connection_tracking");
  settings.connection_tracking = read_connection_tracking(tracking, settings.agent.machine.profile);
  settings.windows = tracking.choice<Windows>(
      "windows", {{"auto", Windows::Auto}, {"exact", Windows::Exact}, {"liberal", Windows::Liberal}}, Windows::Auto);
  settings.log_level = root.section("log").choice<LogLevel>("level",
                                                            {{"trace", LogLevel::Trace},
                                                             {"debug", LogLevel::Debug},
                                                             {"info", LogLevel::Info},
                                                             {"warning", LogLevel::Warning},
                                                             {"error", LogLevel::Error}},
                                                            LogLevel::Info);
  const auto errors = config.errors();
  if (!errors.empty()) return failure(ErrorKind::InvalidInput, fmt::format("{}", fmt::join(errors, "\n")));
  return settings;
}

Result<Settings> load_settings(const std::string& path) {
  Config config = Config::load(path);
  auto settings = read_settings(config);
  if (!settings) return settings;
  pki::check_configured(config, settings->client.credentials, settings->agent.machine.identity);
  if (const auto errors = config.errors(); !errors.empty())
    return failure(ErrorKind::InvalidInput, fmt::format("{}", fmt::join(errors, "\n")));
  settings->agent.machine.addresses = local_addresses();
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

}  // namespace sami::soa
