#include "tde/topology.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>

namespace sami::tde {
namespace {

using Hosts = std::vector<HostReference>;
using Description = TopologyDescription;

using Checked = tl::expected<void, Contradiction>;

tl::unexpected<Contradiction> refuse(const std::string& where, std::string found, std::string expected) {
  return tl::unexpected(Contradiction{where, std::move(found), std::move(expected)});
}
tl::unexpected<Error> invalid(std::string what, int error = 0) {
  return failure(ErrorKind::InvalidInput, std::move(what), error);
}

template <typename Items>
std::string names(const Items& items) {
  std::vector<std::string> all;
  for (const auto& item : items) all.push_back(item.name);
  return fmt::format("{}", fmt::join(all, ", "));
}

template <typename Items>
Checked unique_names(const Items& items) {
  std::map<std::string, std::string> seen;
  for (const auto& item : items) {
    const auto [known, added] = seen.emplace(item.name, item.where);
    if (!added) return refuse(item.where, item.name + " again", "each name once; the first is at " + known->second);
  }
  return {};
}

template <typename Items>
bool declared(const Items& items, const std::string& name) {
  return std::any_of(items.begin(), items.end(), [&](const auto& item) { return item.name == name; });
}

Checked check_vm(const Description& description, const Description::Vm& vm) {
  if (!declared(description.servers, vm.server)) {
    return refuse(vm.where, "server " + vm.server, "a declared server: " + names(description.servers));
  }
  for (const auto& interface : vm.subject.interfaces()) {
    for (const auto& [host, port] : interface.attachment()) {
      if (!declared(description.servers, host) && !declared(description.state_hosts, host)) {
        return refuse(
            vm.where, "an attachment at " + host,
            "a declared server or State Host: " + names(description.servers) + ", " + names(description.state_hosts));
      }
    }
  }
  return {};
}

Checked check_vms(const Description& description) {
  std::map<std::string, std::string> ids;
  std::map<std::pair<std::string, std::string>, std::string> owners;  // (VN, address) -> subject
  for (const auto& vm : description.vms) {
    const auto [known, added] = ids.emplace(vm.subject.id(), vm.where);
    if (!added) return refuse(vm.where, vm.subject.id() + " again", "each id once; the first is at " + known->second);
    if (auto checked = check_vm(description, vm); !checked) return checked;
    for (const auto& interface : vm.subject.interfaces()) {
      for (const auto& address : interface.addresses()) {
        const auto [owner, mine] = owners.emplace(std::pair(interface.vn_name(), address), vm.subject.id());
        if (mine) continue;
        common::Prefix prefix;
        prefix.set_address(address);
        prefix.set_length(static_cast<std::uint32_t>(address.size() * 8));
        return refuse(
            vm.where, to_string(prefix),
            fmt::format("an address that {} does not have in virtual network {}", owner->second, interface.vn_name()));
      }
    }
  }
  return {};
}

Checked check_path(const Description& description, const Description::Path& path) {
  if (!declared(description.servers, path.server)) {
    return refuse(path.where, "server " + path.server, "a declared server: " + names(description.servers));
  }
  std::set<HostReference> crossed;
  for (const auto& reference : path.through) {
    if (!declared(description.state_hosts, reference.host)) {
      return refuse(path.where, "State Host " + reference.host,
                    "a declared State Host: " + names(description.state_hosts));
    }
    if (!crossed.insert(reference).second) {
      return refuse(path.where, to_string(reference) + " again", "each host and context once on a path");
    }
  }
  return {};
}

bool contains(const Hosts& hosts, const HostReference& reference) {
  return std::find(hosts.begin(), hosts.end(), reference) != hosts.end();
}

using Roles = std::map<std::string, std::vector<std::string>>;
bool share_a_role(const Roles& roles, const std::string& a, const std::string& b) {
  const auto& of_b = roles.at(b);
  return std::any_of(roles.at(a).begin(), roles.at(a).end(),
                     [&](const auto& role) { return std::find(of_b.begin(), of_b.end(), role) != of_b.end(); });
}

// Gathers what one class of peers after another contributes; the same finding for several classes is one.
class Gatherer {
 public:
  explicit Gatherer(const Roles& roles) : roles_(roles) {}

  void add_class(const PrefixSet& peers, const Hosts& old_path, const Hosts& new_path) {
    Hosts sources = leaving_first(old_path, new_path);
    std::set<HostReference> used;
    for (const auto& host : new_path) {
      if (contains(old_path, host)) {
        add(retained_, {host, host, common::DISPOSITION_COPY_AND_RETAIN}, peers);
      } else if (const auto source = source_for(host, sources, used)) {
        used.insert(*source);
        add(moved_,
            {*source, host,
             contains(new_path, *source) ? common::DISPOSITION_COPY_AND_RETAIN : common::DISPOSITION_MOVE},
            peers);
      } else {
        note(fmt::format("{} is new on the path, and no host of the same role was on the old one: nothing moves to it",
                         to_string(host)),
             peers);
      }
    }
    for (const auto& host : old_path) {
      if (contains(new_path, host) || used.contains(host)) continue;
      const auto heir = std::find_if(new_path.begin(), new_path.end(), [&](const auto& h) {
        return contains(old_path, h) && share_a_role(roles_, h.host, host.host);
      });
      if (heir != new_path.end()) {
        add(moved_, {host, *heir, common::DISPOSITION_MOVE, true}, peers);
        continue;
      }
      note(fmt::format("{} is no longer on the path, and has no counterpart there: its state stays until it expires",
                       to_string(host)),
           peers);
    }
  }

  void note(const std::string& text, const PrefixSet& peers) {
    const auto known = std::find_if(notes_.begin(), notes_.end(), [&](const auto& n) { return n.first == text; });
    if (known == notes_.end())
      notes_.emplace_back(text, peers);
    else
      known->second = known->second | peers;
  }

  Plan result() const {
    Plan plan;
    plan.transfers = transfers(moved_);
    plan.retained = transfers(retained_);
    for (const auto& transfer : plan.retained) {
      plan.notes.push_back(fmt::format("{} stays on the path: retained (peers: {})",
                                       to_string(HostReference{transfer.source_host(), transfer.source_context()}),
                                       to_string(transfer.peers())));
    }
    for (const auto& [text, peers] : notes_) {
      plan.notes.push_back(fmt::format("{} (peers: {})", text, to_string(peers.selector())));
    }
    return plan;
  }

 private:
  struct Movement {
    HostReference source, destination;
    common::Disposition disposition = common::DISPOSITION_UNSPECIFIED;
    bool leftover = false;  // the destination has it already: the source is to be released
    bool operator==(const Movement&) const = default;
  };
  using Movements = std::vector<std::pair<Movement, PrefixSet>>;

  static void add(Movements& to, const Movement& movement, const PrefixSet& peers) {
    const auto known = std::find_if(to.begin(), to.end(), [&](const auto& m) { return m.first == movement; });
    if (known == to.end())
      to.emplace_back(movement, peers);
    else
      known->second = known->second | peers;
  }

  static Hosts leaving_first(const Hosts& old_path, const Hosts& new_path) {
    Hosts sorted = old_path;
    std::stable_partition(sorted.begin(), sorted.end(), [&](const auto& host) { return !contains(new_path, host); });
    return sorted;
  }

  // Another context of the same host, else the first of the same role that is not used, else the last that is.
  std::optional<HostReference> source_for(const HostReference& host, const Hosts& sources,
                                          const std::set<HostReference>& used) const {
    for (const auto& source : sources) {
      if (source.host == host.host && !used.contains(source)) return source;
    }
    std::optional<HostReference> again;
    for (const auto& source : sources) {
      if (!share_a_role(roles_, source.host, host.host)) continue;
      if (!used.contains(source)) return source;
      again = source;
    }
    return again;
  }

  static std::vector<common::Transfer> transfers(const Movements& movements) {
    std::vector<common::Transfer> all;
    for (const auto& [movement, peers] : movements) {
      common::Transfer transfer;
      transfer.set_index(static_cast<std::uint32_t>(all.size()));
      transfer.set_source_host(movement.source.host);
      transfer.set_source_context(movement.source.context);
      transfer.set_destination_host(movement.destination.host);
      transfer.set_destination_context(movement.destination.context);
      transfer.set_disposition(movement.disposition);
      transfer.set_leftover(movement.leftover);
      *transfer.mutable_peers() = peers.selector();
      all.push_back(std::move(transfer));
    }
    return all;
  }

  const Roles& roles_;
  Movements moved_, retained_;
  std::vector<std::pair<std::string, PrefixSet>> notes_;
};

}  // namespace

std::string to_string(const HostReference& reference) {
  return reference.context.empty() ? reference.host : reference.host + "/" + reference.context;
}

Topology::Topology(TopologyDescription description) : description_(std::move(description)) {
  for (const auto& host : description_.state_hosts) roles_[host.name] = host.roles;
}

tl::expected<Topology, Contradiction> Topology::make(TopologyDescription given) {
  Topology topology(std::move(given));
  const Description& description = topology.description_;
  for (const auto& checked :
       {unique_names(description.servers), unique_names(description.state_hosts), check_vms(description)}) {
    if (!checked) return tl::unexpected(checked.error());
  }
  for (const auto& server : description.servers) topology.routes_[server.name];
  for (const auto& path : description.paths) {
    if (auto checked = check_path(description, path); !checked) return tl::unexpected(checked.error());
    auto& routes = topology.routes_[path.server];
    PrefixSet peers;
    for (const auto& prefix : path.to) {
      PrefixSet fresh = PrefixSet(prefix) - peers;
      for (const auto& earlier : routes) fresh = fresh - earlier.peers;
      if (fresh.empty()) {
        return refuse(path.where, to_string(prefix),
                      fmt::format("a prefix that earlier entries of {} do not cover "
                                  "(this one is never reached)",
                                  path.server));
      }
      peers = peers | fresh;
    }
    routes.push_back({std::move(peers), path.through});
  }
  return topology;
}

Result<Plan> Topology::plan(const std::string& subject_id, const std::string& from_server,
                            const std::string& to_server) const {
  const common::Subject* moving = subject(subject_id);
  if (moving == nullptr) return invalid(fmt::format("no VM {} in the topology", subject_id), ENOENT);
  for (const auto& server : {from_server, to_server}) {
    if (!has_server(server)) {
      return invalid(
          fmt::format("no server {} in the topology; expected one of {}", server, names(description_.servers)), ENOENT);
    }
  }
  if (from_server == to_server) return invalid(fmt::format("{} is on {} already", subject_id, to_server));

  Gatherer gatherer(roles_);
  PrefixSet known_before, known_after;
  for (const auto& before : routes_.at(from_server)) {
    known_before = known_before | before.peers;
    for (const auto& after : routes_.at(to_server)) {
      const PrefixSet peers = before.peers & after.peers;
      if (!peers.empty()) gatherer.add_class(peers, before.through, after.through);
    }
  }
  for (const auto& after : routes_.at(to_server)) known_after = known_after | after.peers;
  if (const auto lost = known_before - known_after; !lost.empty()) {
    gatherer.note(
        fmt::format("{} has no path to peers that {} reaches: nothing moves for them", to_server, from_server), lost);
  }
  if (const auto gained = known_after - known_before; !gained.empty()) {
    gatherer.note(
        fmt::format("{} had no path to peers that {} reaches: there is nothing to move", from_server, to_server),
        gained);
  }
  Plan plan = gatherer.result();
  plan.subject = *moving;
  return plan;
}

const common::Subject* Topology::subject(const std::string& id) const {
  for (const auto& vm : description_.vms) {
    if (vm.subject.id() == id) return &vm.subject;
  }
  return nullptr;
}

bool Topology::has_server(const std::string& name) const { return routes_.contains(name); }

std::vector<std::string> Topology::lines(const std::map<std::string, std::string>& places) const {
  std::vector<std::string> lines;
  for (const auto& server : description_.servers) {
    std::vector<std::string> here;
    for (const auto& [id, place] : places) {
      if (place == server.name) here.push_back(id);
    }
    lines.push_back(
        fmt::format("server {}: {}", server.name, here.empty() ? "-" : fmt::format("{}", fmt::join(here, ", "))));
  }
  for (const auto& host : description_.state_hosts) {
    lines.push_back(fmt::format("state host {}: {}", host.name, fmt::join(host.roles, ", ")));
  }
  for (const auto& path : description_.paths) {
    std::vector<std::string> to, through;
    for (const auto& prefix : path.to) to.push_back(to_string(prefix));
    for (const auto& reference : path.through) through.push_back(to_string(reference));
    lines.push_back(fmt::format("path from {} to {}: {}", path.server, fmt::join(to, ", "),
                                through.empty() ? "direct" : fmt::format("{}", fmt::join(through, " -> "))));
  }
  return lines;
}

}  // namespace sami::tde
