// What this driver installed for migrations that are not settled yet: counts against the capacity, and knows the
// timeouts to give back. In memory only; a restarted driver has forgotten it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "runtime/clock.h"
#include "state/driver.h"

namespace sami::state::connection_tracking {

struct Held {
  std::uint32_t recorded = 0;  // seconds: as it was at the source
  std::uint32_t given = 0;     // seconds: as it was installed
  Instant since;
  bool exact = false;  // with the source's windows
  Digest form = 0;     // of what was installed, without windows; 0: not known
};

class Ledger {
 public:
  void put(const std::string& context, const Key& key, const Held& held) { entries_[name(context, key)] = held; }
  std::optional<Held> take(const std::string& context, const Key& key) {
    auto node = entries_.extract(name(context, key));
    return node ? std::optional(node.mapped()) : std::nullopt;
  }
  Held* find(const std::string& context, const Key& key) {
    const auto at = entries_.find(name(context, key));
    return at == entries_.end() ? nullptr : &at->second;
  }
  std::size_t size() const { return entries_.size(); }
  // Forgets what nobody settled and has run out by now.
  void expire(Instant now) {
    std::erase_if(entries_, [now](const auto& entry) {
      return now - entry.second.since > std::chrono::seconds(entry.second.given);
    });
  }

 private:
  static std::string name(const std::string& context, const Key& key) { return context + '\0' + key; }
  std::unordered_map<std::string, Held> entries_;
};

}  // namespace sami::state::connection_tracking
