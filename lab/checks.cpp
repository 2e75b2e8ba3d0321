#include "lab/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "lab/lab.h"
#include "lab/namespace.h"
#include "lab/process.h"

namespace sami::lab {
namespace {

// A line of `conntrack -L`: protocol, its number, seconds left, then the state and tuples. The seconds go, and what
// counts or times.
std::string without_timers(const std::string& line) {
  std::istringstream words(line);
  std::string word;
  std::string kept;
  for (int position = 0; words >> word; ++position) {
    const bool counts = word.rfind("packets=", 0) == 0 || word.rfind("bytes=", 0) == 0 || word.rfind("use=", 0) == 0 ||
                        word.rfind("delta-time=", 0) == 0 || word.rfind("id=", 0) == 0;
    if (position == 2 || counts) continue;
    kept += (kept.empty() ? "" : " ") + word;
  }
  return kept;
}

template <typename Predicate>
std::vector<std::string> filtered(const std::vector<std::string>& entries, Predicate keep) {
  std::vector<std::string> kept;
  std::copy_if(entries.begin(), entries.end(), std::back_inserter(kept), keep);
  return kept;
}

bool mentions(const std::string& entry, const std::string& address) {
  return entry.find("=" + address + " ") != std::string::npos;
}

}  // namespace

Result<std::vector<std::string>> conntrack_entries(const std::string& network_namespace) {
  RunOptions options;
  options.network_namespace = network_namespace;
  auto listed = run({"conntrack", "-L"}, options);
  if (!listed) return tl::unexpected(listed.error());
  std::vector<std::string> entries;
  std::istringstream lines(listed->output);
  for (std::string line; std::getline(lines, line);) entries.push_back(without_timers(line));
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::vector<std::string> mentioning(const std::vector<std::string>& entries, const std::string& address) {
  return filtered(entries, [&](const std::string& entry) { return mentions(entry, address); });
}

std::vector<std::string> not_mentioning(const std::vector<std::string>& entries, const std::string& address) {
  return filtered(entries, [&](const std::string& entry) { return !mentions(entry, address); });
}

Result<std::map<std::string, std::uint64_t>> firewall_counters(const std::string& network_namespace) {
  RunOptions options;
  options.network_namespace = network_namespace;
  auto listed = run({"nft", "list", "counters", "table", "inet", "fw"}, options);
  if (!listed) return tl::unexpected(listed.error());
  // counter NAME {
  //   packets N bytes N
  std::map<std::string, std::uint64_t> counters;
  std::istringstream words(listed->output);
  std::string name;
  for (std::string word; words >> word;) {
    if (word == "counter") words >> name;
    if (word == "packets") words >> counters[name];
  }
  return counters;
}

std::vector<std::string> leftovers(const std::string& lab) {
  std::vector<std::string> found;
  const std::string folder = fmt::format("{}/{}", labs_folder(), lab);
  for (const auto& node : usecase1::topology({}).nodes) {
    const std::string name = namespace_name(lab, node.name);
    if (namespace_exists(name)) found.push_back("namespace " + name);
  }
  if (std::filesystem::exists(folder)) found.push_back("folder " + folder);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    std::ifstream file(entry.path() / "cmdline");
    std::string line((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::replace(line.begin(), line.end(), '\0', ' ');
    const bool daemon = line.find("sami-") != std::string::npos;
    if (daemon && line.find(folder + "/") != std::string::npos) {
      found.push_back(fmt::format("process {} {}", entry.path().filename().string(), line));
    }
  }
  return found;
}

}  // namespace sami::lab
