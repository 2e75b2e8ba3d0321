// A topology as data, and how it is built out of network namespaces: nodes are namespaces, links are veth pairs made
// between two of them, so no interface ever appears in the machine's own namespace.
//
// Threading: plain values; build and remove block. Names: the namespace of node N in lab L is "L-N".
#pragma once

#include <string>
#include <vector>

#include "runtime/result.h"

namespace sami::lab {

struct Port {
  std::string node;
  std::string name;                    // at most 15 characters
  std::string mac;                     // empty: the kernel's choice
  std::vector<std::string> addresses;  // "10.1.1.1/24"
  std::string bridge;                  // enslaved to this bridge of the same node; empty: none
  bool up = true;
};

struct Link {
  Port a;
  Port b;
};

struct Bridge {
  std::string name;
  std::string mac;
  std::vector<std::string> addresses;
};

struct Setting {
  std::string key;
  std::string value;
  bool optional = false;  // not every kernel has it
};

struct Node {
  std::string name;
  std::string role;  // for people: "firewall", "virtual machine", ...
  std::vector<Bridge> bridges;
  std::vector<std::string> commands;  // lines of `ip -batch`, after all interfaces are up
  std::vector<Setting> settings;      // kernel settings, once all interfaces exist
  std::string ruleset;                // for `nft -f -`
};

struct Topology {
  std::vector<Setting> settings;  // of every node, before it has interfaces
  std::vector<Node> nodes;
  std::vector<Link> links;

  const Node* find(const std::string& node) const;
  std::vector<std::string> addresses_of(const std::string& node) const;
};

std::string namespace_name(const std::string& lab, const std::string& node);

// Returns when every port that is to be up carries traffic. Errors: Failed with the kernel tools' own words;
// what was built until then stays: call remove_topology.
Result<void> build_topology(const std::string& lab, const Topology& topology);

// Removes the namespaces of the nodes that exist, all of them even if one fails; the first error is returned.
Result<void> remove_topology(const std::string& lab, const std::vector<std::string>& nodes);

// Until the kernel has taken the interface for running: a bridge forwards nothing through a port before that, and it
// can take a second after its link came up. Error: Failed.
Result<void> wait_until_running(const std::string& network_namespace, const std::string& device);

// Runs lines of `ip -batch` or an nft ruleset in the node's namespace. The whole ruleset is one transaction.
Result<void> ip_batch(const std::string& network_namespace, const std::vector<std::string>& lines);
Result<void> load_ruleset(const std::string& network_namespace, const std::string& ruleset);

}  // namespace sami::lab
