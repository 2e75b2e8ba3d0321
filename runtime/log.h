// Logging: a message and key=value fields, one line each, to standard error.
//
// Under systemd it goes to the journal, where each field can be searched (journalctl MIGRATION_ID=...); elsewhere a
// line begins with the UTC time and the level. Values with blanks, quotes or control characters are quoted and escaped,
// so that a peer cannot forge a line; a value is cut after 2048 octets. A Log is a cheap handle: copy it. Thread-safe.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/clock.h"
#include "runtime/result.h"

namespace sami {

enum class LogLevel { Trace, Debug, Info, Warning, Error };
// "trace" ... "error". Error: InvalidInput, naming the words.
Result<LogLevel> parse_log_level(std::string_view word);

struct Field {
  Field(std::string_view k, std::string_view v) : key(k), value(v) {}
  Field(std::string_view k, const char* v) : key(k), value(v) {}
  Field(std::string_view k, const std::string& v) : key(k), value(v) {}
  Field(std::string_view k, bool v) : key(k), value(v ? "true" : "false") {}
  template <typename Number>
    requires(std::integral<Number> || std::floating_point<Number>)
  Field(std::string_view k, Number v) : key(k), value(std::to_string(v)) {}
  // error="..." of a failed Result.
  explicit Field(const Error& error) : key("error"), value(error.message) {}

  std::string key;
  std::string value;
};
using Fields = std::initializer_list<Field>;

// At most `burst` messages per `interval`; the next one that passes says how many were left out. Thread-safe.
class RateLimit {
 public:
  explicit RateLimit(std::uint32_t burst = 10, Duration interval = std::chrono::seconds(10))
      : burst_(burst), interval_(interval) {}
  // True: let it pass; `suppressed` is the number left out since the last one that passed.
  bool pass(Instant now, std::uint64_t& suppressed);

 private:
  const std::uint32_t burst_;
  const Duration interval_;
  std::mutex mutex_;
  std::optional<Instant> window_start_;
  std::uint32_t count_ = 0;
  std::uint64_t suppressed_ = 0;
};

class Log {
 public:
  // Gets each finished line, without time and newline. Called on the logging thread, one call at a time.
  using Sink = std::function<void(LogLevel, const std::string& line)>;

  // To standard error.
  explicit Log(LogLevel level = LogLevel::Info);
  // For tests.
  Log(LogLevel level, Sink sink);

  // The same log with fields that every line carries. The level is shared.
  Log with(Fields fields) const;
  void set_level(LogLevel level);
  bool enabled(LogLevel level) const;

  void write(LogLevel level, std::string_view message, Fields fields = {}) const;
  void trace(std::string_view message, Fields fields = {}) const { write(LogLevel::Trace, message, fields); }
  void debug(std::string_view message, Fields fields = {}) const { write(LogLevel::Debug, message, fields); }
  void info(std::string_view message, Fields fields = {}) const { write(LogLevel::Info, message, fields); }
  void warning(std::string_view message, Fields fields = {}) const { write(LogLevel::Warning, message, fields); }
  void error(std::string_view message, Fields fields = {}) const { write(LogLevel::Error, message, fields); }
  // What a peer can provoke is logged through a limit; a line that follows left-out ones carries suppressed=N.
  void limited(RateLimit& limit, LogLevel level, std::string_view message, Fields fields = {}) const;

 private:
  class Implementation;
  std::shared_ptr<Implementation> implementation_;
  std::vector<Field> context_;
};

}  // namespace sami
