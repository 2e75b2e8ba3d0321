#include "lab/topology.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lab/namespace.h"
#include "lab/poll.h"
#include "lab/process.h"

namespace sami::lab {
namespace {

std::string mac_option(const std::string& mac) { return mac.empty() ? "" : " address " + mac; }

std::vector<std::string> make_interfaces(const std::string& lab, const Node& node, const Topology& topology) {
  std::vector<std::string> lines{"link set lo up"};
  for (const auto& bridge : node.bridges) {
    lines.push_back(fmt::format("link add {}{} type bridge mcast_snooping 0", bridge.name, mac_option(bridge.mac)));
  }
  for (const auto& link : topology.links) {
    if (link.a.node != node.name) continue;
    lines.push_back(fmt::format("link add {}{} type veth peer name {}{} netns {}", link.a.name, mac_option(link.a.mac),
                                link.b.name, mac_option(link.b.mac), namespace_name(lab, link.b.node)));
  }
  return lines;
}

void configure_port(const Port& port, std::vector<std::string>& lines) {
  // One segment per packet, as on a wire, so that a lost packet is one segment lost.
  lines.push_back(fmt::format("link set {} gso_max_segs 1", port.name));
  if (!port.bridge.empty()) lines.push_back(fmt::format("link set {} master {}", port.name, port.bridge));
  for (const auto& address : port.addresses) lines.push_back(fmt::format("address add {} dev {}", address, port.name));
  if (port.up) lines.push_back(fmt::format("link set {} up", port.name));
}

std::vector<std::string> configure_interfaces(const Node& node, const Topology& topology) {
  std::vector<std::string> lines;
  for (const auto& link : topology.links) {
    if (link.a.node == node.name) configure_port(link.a, lines);
    if (link.b.node == node.name) configure_port(link.b, lines);
  }
  for (const auto& bridge : node.bridges) {
    configure_port({node.name, bridge.name, "", bridge.addresses, "", true}, lines);
  }
  lines.insert(lines.end(), node.commands.begin(), node.commands.end());
  return lines;
}

Result<void> apply(const std::string& inside, const std::vector<Setting>& settings) {
  for (const auto& [key, value, optional] : settings) {
    auto done = set_sysctl(inside, key, value);
    if (!done && !(optional && done.error().kind == ErrorKind::Unsupported)) return done;
  }
  return {};
}

Result<void> build_node(const std::string& lab, const Node& node, const Topology& topology) {
  const std::string inside = namespace_name(lab, node.name);
  if (auto done = ip_batch(inside, configure_interfaces(node, topology)); !done) return done;
  if (auto done = apply(inside, node.settings); !done) return done;
  return node.ruleset.empty() ? Result<void>{} : load_ruleset(inside, node.ruleset);
}

}  // namespace

const Node* Topology::find(const std::string& node) const {
  for (const auto& candidate : nodes) {
    if (candidate.name == node) return &candidate;
  }
  return nullptr;
}

std::vector<std::string> Topology::addresses_of(const std::string& node) const {
  std::vector<std::string> found;
  const auto add = [&](const std::vector<std::string>& more) { found.insert(found.end(), more.begin(), more.end()); };
  if (const auto* known = find(node)) {
    for (const auto& bridge : known->bridges) add(bridge.addresses);
  }
  for (const auto& link : links) {
    if (link.a.node == node) add(link.a.addresses);
    if (link.b.node == node) add(link.b.addresses);
  }
  return found;
}

std::string namespace_name(const std::string& lab, const std::string& node) { return lab + "-" + node; }

Result<void> build_topology(const std::string& lab, const Topology& topology) {
  for (const auto& node : topology.nodes) {
    const std::string inside = namespace_name(lab, node.name);
    if (auto made = create_namespace(inside); !made) return made;
    if (auto done = apply(inside, topology.settings); !done) return done;
  }
  for (const auto& node : topology.nodes) {
    const std::string inside = namespace_name(lab, node.name);
    if (auto made = ip_batch(inside, make_interfaces(lab, node, topology)); !made) return made;
  }
  for (const auto& node : topology.nodes) {
    if (auto built = build_node(lab, node, topology); !built) return built;
  }
  for (const auto& link : topology.links) {
    if (!link.a.up || !link.b.up) continue;
    for (const auto& port : {link.a, link.b}) {
      if (auto up = wait_until_running(namespace_name(lab, port.node), port.name); !up) return up;
    }
  }
  return {};
}

Result<void> wait_until_running(const std::string& network_namespace, const std::string& device) {
  bool running = false;
  auto entered = inside_namespace(network_namespace, [&] {
    const int handle = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifreq request{};
    device.copy(request.ifr_name, IFNAMSIZ - 1);
    running = poll_until(
        milliseconds(5000),
        [&] { return ::ioctl(handle, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_RUNNING) != 0; },
        milliseconds(1));
    ::close(handle);
  });
  if (!entered || running) return entered;
  return failure(ErrorKind::Failed, fmt::format("{}: {} does not come up", network_namespace, device));
}

Result<void> remove_topology(const std::string& lab, const std::vector<std::string>& nodes) {
  Result<void> outcome;
  for (const auto& node : nodes) {
    if (auto removed = remove_namespace(namespace_name(lab, node)); !removed && outcome) outcome = removed;
  }
  return outcome;
}

Result<void> ip_batch(const std::string& network_namespace, const std::vector<std::string>& lines) {
  if (lines.empty()) return {};
  RunOptions options;
  options.network_namespace = network_namespace;
  options.input = fmt::format("{}\n", fmt::join(lines, "\n"));
  auto done = run({"ip", "-batch", "-"}, options);
  if (done) return {};
  auto error = done.error();
  error.message += fmt::format("in:\n{}", options.input);
  return tl::unexpected(error);
}

Result<void> load_ruleset(const std::string& network_namespace, const std::string& ruleset) {
  RunOptions options;
  options.network_namespace = network_namespace;
  options.input = ruleset;
  auto done = run({"nft", "-f", "-"}, options);
  if (!done) return tl::unexpected(done.error());
  return {};
}

}  // namespace sami::lab
