// The QEMU Machine Protocol, one line at a time: what QEMU says and what it is told.
// Source of truth: docs/interop/qmp-spec.txt and qapi/migration.json of QEMU (7.2).
//
// Pure values; thread-safe. Nothing from outside throws.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/result.h"

namespace sami::tde::qmp {

inline constexpr std::size_t kMaximumLine = 256 * 1024;

// The texts, whole numbers and booleans of a JSON object, by path: "status", "ram.remaining". Members of lists, and
// what lies deeper than 4 levels, are left out.
class Fields {
 public:
  using Value = std::variant<std::string, std::int64_t, bool>;
  static constexpr std::size_t kMaximum = 1024;

  void set(std::string path, Value value) { values_.insert_or_assign(std::move(path), std::move(value)); }
  std::size_t size() const { return values_.size(); }
  // Nothing when it is missing or of another type.
  std::optional<std::string> text(std::string_view path) const { return get<std::string>(path); }
  std::optional<std::int64_t> number(std::string_view path) const { return get<std::int64_t>(path); }
  std::optional<bool> flag(std::string_view path) const { return get<bool>(path); }

 private:
  template <typename T>
  std::optional<T> get(std::string_view path) const {
    const auto found = values_.find(path);
    if (found == values_.end() || !std::holds_alternative<T>(found->second)) return std::nullopt;
    return std::get<T>(found->second);
  }
  std::map<std::string, Value, std::less<>> values_;
};

struct Greeting {
  std::string version;  // "7.2.22"
};
struct Event {
  std::string name;  // "MIGRATION", "STOP", ...
  Fields data;
  std::int64_t microseconds = 0;  // since the Unix epoch, by QEMU's clock
};
struct Answer {
  std::optional<std::uint64_t> id;  // nothing: QEMU could not read the command
  Fields value;
  std::string error_class;  // empty: no error
  std::string error;
};
using Message = std::variant<Greeting, Event, Answer>;

// Errors: Corrupt, saying what was found and what was expected.
Result<Message> parse(std::string_view line);

// A command of QMP; arguments is a JSON object, or empty.
struct Command {
  std::string name;
  std::string arguments;
};
std::string encode(std::uint64_t id, const Command& command);  // ends with a newline

Command negotiate();  // qmp_capabilities
Command query_status();
Command query_migrate();
Command query_migrate_parameters();
Command set_capabilities(const std::vector<std::string>& on, const std::vector<std::string>& off = {});
Command set_bandwidth(std::int64_t octets_per_second);
Command migrate(const std::string& uri);
Command migrate_incoming(const std::string& uri);
Command migrate_continue();  // from pre-switchover
Command migrate_cancel();
Command stop();
Command cont();
Command quit();

}  // namespace sami::tde::qmp
