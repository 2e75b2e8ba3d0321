#include <map>

#include "cli/output.h"
#include "cli/run.h"
#include "state/connection_tracking/render.h"

namespace sami::cli {
namespace {

struct Shown {
  std::string state_class;
  std::string body;
};
// class and key -> record
using Records = std::map<std::pair<std::string, std::string>, Shown>;

std::string text_of(const Shown& record) {
  if (record.state_class == "connection_tracking") {
    if (auto text = state::connection_tracking::render_text(record.body)) return *text;
    return "unreadable record";
  }
  return std::to_string(record.body.size()) + " bytes (this program does not know the class)";
}

std::string json_of(const Shown& record) {
  if (record.state_class == "connection_tracking")
    if (auto json = state::connection_tracking::render_json(record.body)) return *json;
  return "null";
}

Answer<Records> fetch(MasterClient& master, const std::string& host, const std::string& vm,
                      const std::string& state_class, const std::string& context) {
  api::StateRequest request;
  request.set_host(host);
  request.set_subject_id(vm);
  request.set_state_class(state_class);
  request.set_context(context);
  Records records;
  const auto answer = master.state(request, [&](const api::StateReply& reply) {
    for (const auto& record : reply.records())
      records[{reply.state_class(), record.key()}] = {reply.state_class(), record.body()};
    return true;
  });
  if (const auto* problem = std::get_if<Problem>(&answer)) return *problem;
  return records;
}

void print(const Records& records, bool json, std::ostream& out) {
  if (!json) {
    for (const auto& [key, record] : records) out << record.state_class << "  " << text_of(record) << "\n";
    return;
  }
  const char* separator = "[";
  for (const auto& [key, record] : records) {
    out << separator << R"({"class":")" << record.state_class << R"(","record":)" << json_of(record) << "}";
    separator = ",\n";
  }
  out << (records.empty() ? "[]\n" : "]\n");
}

}  // namespace

ExitCode run_state(const command::StateShow& command, bool json, MasterClient& master, std::ostream& out,
                   std::ostream& err) {
  auto answer = fetch(master, command.host, command.vm, command.state_class, command.context);
  if (const auto* problem = std::get_if<Problem>(&answer)) return report(err, *problem);
  print(std::get<Records>(answer), json, out);
  return ExitCode::Done;
}

ExitCode run_state(const command::StateDiff& command, bool json, MasterClient& master, std::ostream& out,
                   std::ostream& err) {
  auto first = fetch(master, command.first_host, command.vm, command.state_class, command.context);
  if (const auto* problem = std::get_if<Problem>(&first)) return report(err, *problem);
  auto second = fetch(master, command.second_host, command.vm, command.state_class, command.context);
  if (const auto* problem = std::get_if<Problem>(&second)) return report(err, *problem);
  Records only_first = std::get<Records>(first), only_second = std::get<Records>(second);
  for (auto it = only_first.begin(); it != only_first.end();) {
    if (only_second.erase(it->first) > 0)
      it = only_first.erase(it);
    else
      ++it;
  }
  if (json) {
    out << R"({"only_on_)" << command.first_host << R"(":)";
    print(only_first, true, out);
    out << R"(,"only_on_)" << command.second_host << R"(":)";
    print(only_second, true, out);
    out << "}\n";
  } else {
    for (const auto& [key, record] : only_first) out << "- " << command.first_host << "  " << text_of(record) << "\n";
    for (const auto& [key, record] : only_second) out << "+ " << command.second_host << "  " << text_of(record) << "\n";
  }
  return only_first.empty() && only_second.empty() ? ExitCode::Done : ExitCode::Different;
}

}  // namespace sami::cli
