#include "tde/qemu/qmp_message.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace sami::tde::qmp {
namespace {

using nlohmann::json;

constexpr int kMaximumDepth = 4;

void flatten(const json& object, const std::string& path, int depth, Fields& fields) {
  for (const auto& [key, value] : object.items()) {
    if (fields.size() >= Fields::kMaximum) return;
    const std::string here = path.empty() ? key : path + "." + key;
    if (value.is_object() && depth < kMaximumDepth) {
      flatten(value, here, depth + 1, fields);
    } else if (value.is_string()) {
      fields.set(here, value.get<std::string>());
    } else if (value.is_boolean()) {
      fields.set(here, value.get<bool>());
    } else if (value.is_number_integer()) {
      fields.set(here, value.get<std::int64_t>());
    }
  }
}

Fields flattened(const json& message, const char* key) {
  Fields fields;
  const auto found = message.find(key);
  if (found != message.end() && found->is_object()) flatten(*found, "", 1, fields);
  return fields;
}

std::int64_t number_of(const Fields& fields, const char* path) { return fields.number(path).value_or(0); }

Message greeting(const json& message) {
  const Fields fields = flattened(message, "QMP");
  return Greeting{fmt::format("{}.{}.{}", number_of(fields, "version.qemu.major"),
                              number_of(fields, "version.qemu.minor"), number_of(fields, "version.qemu.micro"))};
}

// Seconds that do not fit into microseconds are no time: 0.
std::int64_t microseconds(const Fields& timestamp) {
  constexpr std::int64_t kMillion = 1'000'000;
  const std::int64_t seconds = number_of(timestamp, "seconds");
  const std::int64_t rest = number_of(timestamp, "microseconds");
  if (seconds < 0 || seconds > INT64_MAX / kMillion - 1 || rest < 0 || rest >= kMillion) return 0;
  return seconds * kMillion + rest;
}

Result<Message> event(const json& message) {
  if (!message["event"].is_string()) {
    return failure(ErrorKind::Corrupt, "QMP: the name of an event is not a text, expected for example \"STOP\"");
  }
  return Event{message["event"].get<std::string>(), flattened(message, "data"),
               microseconds(flattened(message, "timestamp"))};
}

Answer answer(const json& message) {
  Answer made;
  const auto id = message.find("id");
  if (id != message.end() && id->is_number_unsigned()) made.id = id->get<std::uint64_t>();
  made.value = flattened(message, "return");
  if (!message.contains("error")) return made;
  const Fields error = flattened(message, "error");
  made.error_class = error.text("class").value_or("GenericError");
  made.error = error.text("desc").value_or("no description");
  return made;
}

std::string shown(std::string_view line) {
  constexpr std::size_t kShown = 80;
  std::string text;
  for (const char c : line.substr(0, kShown)) text += c >= ' ' && c < 0x7f ? c : '?';
  return line.size() > kShown ? text + "..." : text;
}

}  // namespace

Result<Message> parse(std::string_view line) {
  if (line.size() > kMaximumLine) {
    return failure(ErrorKind::Corrupt,
                   fmt::format("QMP: a line of {} octets, expected at most {}", line.size(), kMaximumLine));
  }
  const json message = json::parse(line, nullptr, false);
  if (!message.is_object()) {
    return failure(ErrorKind::Corrupt, fmt::format("QMP: found \"{}\", expected a JSON object", shown(line)));
  }
  if (message.contains("QMP")) return greeting(message);
  if (message.contains("event")) return event(message);
  if (message.contains("return") || message.contains("error")) return answer(message);
  return failure(ErrorKind::Corrupt,
                 fmt::format("QMP: found \"{}\", expected a greeting, an event, a return or an error", shown(line)));
}

std::string encode(std::uint64_t id, const Command& command) {
  std::string arguments = command.arguments.empty() ? "" : ",\"arguments\":" + command.arguments;
  return fmt::format("{{\"execute\":{},\"id\":{}{}}}\n", json(command.name).dump(), id, arguments);
}

Command negotiate() { return {"qmp_capabilities", ""}; }
Command query_status() { return {"query-status", ""}; }
Command query_migrate() { return {"query-migrate", ""}; }
Command query_migrate_parameters() { return {"query-migrate-parameters", ""}; }

Command set_capabilities(const std::vector<std::string>& on, const std::vector<std::string>& off) {
  json list = json::array();
  for (const auto& name : on) list.push_back({{"capability", name}, {"state", true}});
  for (const auto& name : off) list.push_back({{"capability", name}, {"state", false}});
  return {"migrate-set-capabilities", json{{"capabilities", list}}.dump()};
}

Command set_bandwidth(std::int64_t octets_per_second) {
  return {"migrate-set-parameters", json{{"max-bandwidth", octets_per_second}}.dump()};
}

Command migrate(const std::string& uri) { return {"migrate", json{{"uri", uri}}.dump(-1, ' ', true)}; }
Command migrate_incoming(const std::string& uri) {
  return {"migrate-incoming", json{{"uri", uri}}.dump(-1, ' ', true)};
}
Command migrate_continue() { return {"migrate-continue", R"({"state":"pre-switchover"})"}; }
Command migrate_cancel() { return {"migrate_cancel", ""}; }
Command stop() { return {"stop", ""}; }
Command cont() { return {"cont", ""}; }
Command quit() { return {"quit", ""}; }

}  // namespace sami::tde::qmp
