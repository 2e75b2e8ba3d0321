#include "runtime/log.h"

#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>

#include "runtime/journald.h"

namespace sami {
namespace {

constexpr std::size_t maximum_value = 2048;
constexpr std::array<std::string_view, 5> level_words = {"trace", "debug", "info", "warning", "error"};

spdlog::level::level_enum spdlog_level(LogLevel level) {
  constexpr std::array levels = {spdlog::level::trace, spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                 spdlog::level::err};
  return levels[static_cast<std::size_t>(level)];
}

LogLevel our_level(spdlog::level::level_enum level) {
  return level >= spdlog::level::err ? LogLevel::Error : static_cast<LogLevel>(level);
}

class CallbackSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit CallbackSink(Log::Sink callback) : callback_(std::move(callback)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    callback_(our_level(message.level), std::string(message.payload.data(), message.payload.size()));
  }
  void flush_() override {}

 private:
  Log::Sink callback_;
};

// Appends text so that it stays on one line and cannot steer a terminal (C0, DEL, and C1 as UTF-8).
void append_escaped(std::string& line, std::string_view text, bool escape_quotes) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto octet = static_cast<unsigned char>(text[i]);
    const bool c1 = octet == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (octet == '\n') {
      line += "\\n";
    } else if (octet < 0x20 || octet == 0x7f || c1) {
      line += fmt::format("\\x{:02x}", octet);
    } else {
      if (escape_quotes && (octet == '"' || octet == '\\')) line += '\\';
      line += text[i];
    }
  }
}

void append_field(std::string& line, const Field& field) {
  line += ' ';
  line += field.key;
  line += '=';
  const std::string_view value = std::string_view(field.value).substr(0, maximum_value);
  bool plain = !value.empty();
  for (const char c : value) plain = plain && c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
  if (plain) {
    line += value;
    return;
  }
  line += '"';
  append_escaped(line, value, true);
  line += value.size() < field.value.size() ? "...\"" : "\"";
}

}  // namespace

Result<LogLevel> parse_log_level(std::string_view word) {
  for (std::size_t i = 0; i < level_words.size(); ++i)
    if (word == level_words[i]) return static_cast<LogLevel>(i);
  return failure(ErrorKind::InvalidInput,
                 fmt::format("log level \"{}\": expected one of {}", word, fmt::join(level_words, ", ")));
}

bool RateLimit::pass(Instant now, std::uint64_t& suppressed) {
  const std::lock_guard lock(mutex_);
  if (!window_start_ || now - *window_start_ >= interval_) {
    window_start_ = now;
    count_ = 0;
  }
  if (count_ >= burst_) {
    ++suppressed_;
    return false;
  }
  ++count_;
  suppressed = std::exchange(suppressed_, 0);
  return true;
}

class Log::Implementation {
 public:
  Implementation(spdlog::sink_ptr sink, bool to_journald) : logger("sami", std::move(sink)), journald(to_journald) {
    logger.set_pattern("%Y-%m-%dT%H:%M:%S.%fZ %-7l %v", spdlog::pattern_time_type::utc);
    logger.set_error_handler([](const std::string&) {});
  }
  spdlog::logger logger;
  const bool journald;
};

Log::Log(LogLevel level)
    : implementation_(std::make_shared<Implementation>(std::make_shared<spdlog::sinks::stderr_sink_mt>(),
                                                       journald::is_standard_error())) {
  set_level(level);
}

Log::Log(LogLevel level, Sink sink)
    : implementation_(std::make_shared<Implementation>(std::make_shared<CallbackSink>(std::move(sink)), false)) {
  set_level(level);
}

Log Log::with(Fields fields) const {
  Log result = *this;
  result.context_.insert(result.context_.end(), fields.begin(), fields.end());
  return result;
}

void Log::set_level(LogLevel level) { implementation_->logger.set_level(spdlog_level(level)); }
bool Log::enabled(LogLevel level) const { return implementation_->logger.should_log(spdlog_level(level)); }

void Log::write(LogLevel level, std::string_view message, Fields fields) const {
  if (!enabled(level)) return;
  std::string text;
  append_escaped(text, message, false);
  if (implementation_->journald) {
    std::vector<Field> all = context_;
    all.insert(all.end(), fields.begin(), fields.end());
    if (journald::send(journald::entries(level, text, all))) return;
  }
  for (const Field& field : context_) append_field(text, field);
  for (const Field& field : fields) append_field(text, field);
  implementation_->logger.log(spdlog_level(level), spdlog::string_view_t(text.data(), text.size()));
}

void Log::limited(RateLimit& limit, LogLevel level, std::string_view message, Fields fields) const {
  if (!enabled(level)) return;
  std::uint64_t suppressed = 0;
  if (!limit.pass(system_clock().now(), suppressed)) return;
  if (suppressed == 0) write(level, message, fields);
  else with({{"suppressed", suppressed}}).write(level, message, fields);
}

}  // namespace sami
