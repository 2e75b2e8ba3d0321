// Servers, State Hosts, VMs and the paths of their flows, and what a move means for them: which State Host's state goes
// where. Pure: no I/O, no places of its own beyond what it is told. Immutable after make(); thread-safe.
//
// A path is chosen as a router would: of the entries of a server, in order, the first whose prefix takes the peer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "interfaces/common/common.pb.h"
#include "runtime/result.h"
#include "tde/prefix_set.h"

namespace sami::tde {

// A State Host and one of its contexts, written "host" or "host/context". "" is the default context.
struct HostReference {
  std::string host;
  std::string context;
  friend auto operator<=>(const HostReference&, const HostReference&) = default;
};
std::string to_string(const HostReference& reference);

// `where` names the part of the configuration ("paths[2]") in errors.
struct TopologyDescription {
  struct Server { std::string name, where; };
  struct StateHost { std::string name; std::vector<std::string> roles; std::string where; };
  struct Vm { common::Subject subject; std::string server, where; };
  struct Path {
    std::string server;
    std::vector<common::Prefix> to;
    std::vector<HostReference> through;        // in the order in which the VM's packets cross them; may be empty
    std::string where;
  };
  std::vector<Server> servers;
  std::vector<StateHost> state_hosts;
  std::vector<Vm> vms;
  std::vector<Path> paths;
};

// Why a description makes no sense.
struct Contradiction {
  std::string where;
  std::string found;
  std::string expected;
};

// What a move means. Transfers are numbered from 0; no two have the same hosts, contexts, disposition and leftover.
struct Plan {
  common::Subject subject;
  std::vector<common::Transfer> transfers;
  // Hosts that stay on the path in the same context, as transfers from the host to itself: nothing is to be done there.
  std::vector<common::Transfer> retained;
  std::vector<std::string> notes;              // for people: what is retained, and what has no counterpart
};

class Topology {
 public:
  // Refused: names twice or undeclared, an address of two subjects in one virtual network, a host twice on one path, a
  // prefix that is never reached.
  static tl::expected<Topology, Contradiction> make(TopologyDescription description);

  // For each class of peers whose path changes: every State Host on the new path that was not on the old one gets the
  // state of the old path's host with the same role (those that leave the path first, in order; the last one again when
  // there are more new than old). The source keeps its records (COPY_AND_RETAIN) where it is on the new path, too. A
  // host that leaves a path on which another of its role stays is released to that one (leftover).
  // Error: InvalidInput (unknown subject or server, a move to where it is).
  Result<Plan> plan(const std::string& subject_id, const std::string& from_server, const std::string& to_server) const;

  const common::Subject* subject(const std::string& id) const;
  bool has_server(const std::string& name) const;
  const TopologyDescription& description() const { return description_; }
  // Servers with the VMs that `places` (subject id -> server) has there, State Hosts, paths: lines for people.
  std::vector<std::string> lines(const std::map<std::string, std::string>& places) const;

 private:
  explicit Topology(TopologyDescription description);

  struct Route { PrefixSet peers; std::vector<HostReference> through; };   // first match resolved: peers are disjoint
  TopologyDescription description_;
  std::map<std::string, std::vector<Route>> routes_;                      // server ->
  std::map<std::string, std::vector<std::string>> roles_;                 // State Host ->
};

}  // namespace sami::tde
