// What the kernel's own tools say about a lab: conntrack entries, nft counters, and what was left behind.
// Blocks for as long as the tools take. Errors: Failed with their words.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/result.h"

namespace sami::lab {

// `conntrack -L` of the namespace, sorted, with timers and counters taken off: equal lists mean equal tables.
Result<std::vector<std::string>> conntrack_entries(const std::string& network_namespace);

// Those that mention the address, in any tuple.
std::vector<std::string> mentioning(const std::vector<std::string>& entries, const std::string& address);
std::vector<std::string> not_mentioning(const std::vector<std::string>& entries, const std::string& address);

// The packet counts of the named counters of table inet fw: "invalid", "new_dropped", "input_dropped".
Result<std::map<std::string, std::uint64_t>> firewall_counters(const std::string& network_namespace);

// Namespaces, processes and files that still belong to a lab of that name, one line each; empty: none.
std::vector<std::string> leftovers(const std::string& lab);

}  // namespace sami::lab
