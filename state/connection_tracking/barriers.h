// Which scope has its barrier up, and where: places that two scopes share stay up until the last one lowers them. In
// memory only: a barrier ends with its process.
#pragma once

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernel/windows/windows.h"
#include "state/driver.h"

namespace sami::state::connection_tracking {

class Barriers {
 public:
  Result<void> raise(windows::Barrier& barrier, const Scope& scope, const std::vector<windows::Place>& places,
                     std::chrono::milliseconds timeout) {
    up_[id_of(scope)].insert(places.begin(), places.end());
    failed_.erase(id_of(scope));
    auto raised = barrier.raise(places, timeout);
    if (!raised) failed_.insert(id_of(scope));
    return raised;
  }
  Result<void> lower(windows::Barrier& barrier, const Scope& scope) {
    const auto at = up_.find(id_of(scope));
    if (at == up_.end()) return {};
    std::vector<windows::Place> only_here;
    for (const auto& place : at->second) {
      bool shared = false;
      for (const auto& [id, places] : up_) shared = shared || (id != at->first && places.contains(place));
      if (!shared) only_here.push_back(place);
    }
    if (auto lowered = barrier.lower(only_here); !lowered) return lowered;
    failed_.erase(at->first);
    up_.erase(at);
    return {};
  }
  // The last raise failed: the subject's packets were not stopped.
  bool failed(const Scope& scope) const { return failed_.contains(id_of(scope)); }

 private:
  using ScopeId = std::pair<std::string, std::uint32_t>;
  static ScopeId id_of(const Scope& scope) { return {scope.migration_id, scope.transfer}; }
  std::map<ScopeId, std::set<windows::Place>> up_;
  std::set<ScopeId> failed_;
};

}  // namespace sami::state::connection_tracking
