#include "cli/json.h"

#include <fmt/format.h>

#include "cli/output.h"

namespace sami::cli {
namespace {

template <typename Items, typename Function>
Json array(const Items& items, Function&& one) {
  Json out = Json::array();
  for (const auto& item : items) out.push_back(one(item));
  return out;
}

std::string enum_word(const std::string& name, const std::string& prefix) {
  return name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : name;
}

std::string mac_text(const std::string& octets) {
  std::string text;
  for (const char octet : octets)
    text += fmt::format("{}{:02x}", text.empty() ? "" : ":", static_cast<unsigned char>(octet));
  return text;
}

}  // namespace

Json to_json(const common::v1::Subject& subject) {
  return {{"id", subject.id()},
          {"kind", enum_word(common::v1::SubjectKind_Name(subject.kind()), "SUBJECT_KIND_")},
          {"interfaces", array(subject.interfaces(), [](const common::v1::Interface& interface) {
             Json attachment = Json::object();
             for (const auto& [host, port] : interface.attachment()) attachment[host] = port;
             return Json{{"vn", interface.vn_name()},
                         {"vnid", interface.vnid()},
                         {"mac", mac_text(interface.mac())},
                         {"addresses", array(interface.addresses(), address_text)},
                         {"learned_within", array(interface.learned_within(), prefix_text)},
                         {"attachment", attachment}};
           })}};
}

Json to_json(const common::v1::Transfer& transfer) {
  return {{"source_host", transfer.source_host()},
          {"source_context", transfer.source_context()},
          {"destination_host", transfer.destination_host()},
          {"destination_context", transfer.destination_context()},
          {"disposition", enum_word(common::v1::Disposition_Name(transfer.disposition()), "DISPOSITION_")},
          {"peers", Json{{"include", array(transfer.peers().include(), prefix_text)},
                         {"exclude", array(transfer.peers().exclude(), prefix_text)}}}};
}

Json to_json(const common::v1::Finding& finding) {
  return {{"code", enum_word(common::v1::FindingCode_Name(finding.code()), "FINDING_")},
          {"detail", finding.detail()},
          {"records", finding.records()}};
}

Json to_json(const common::v1::ClassFeedback& feedback) {
  return {{"class", feedback.state_class()},
          {"result", enum_word(common::v1::ClassResult_Name(feedback.result()), "CLASS_RESULT_")},
          {"records", feedback.records()},
          {"findings", array(feedback.findings(), [](const auto& finding) { return to_json(finding); })}};
}

Json to_json(const api::Host& host) {
  const auto& profile = host.profile();
  return {{"name", host.name()},
          {"connected", host.connected()},
          {"drained", host.drained()},
          {"classes", array(profile.classes(),
                            [](const if_m_a::v1::ClassProfile& c) {
                              return Json{
                                  {"class", c.state_class()},
                                  {"representation", c.representation()},
                                  {"functions", array(c.functions(), [](const std::string& f) { return f; })},
                                  {"capacity", c.capacity()},
                                  {"not_carried", array(c.not_carried(), [](const std::string& f) { return f; })}};
                            })},
          {"contexts", array(profile.contexts(),
                             [](const if_m_a::v1::ContextProfile& context) {
                               Json zones = Json::object();
                               for (const auto& [vn, zone] : context.vn_zone()) zones[vn] = zone;
                               return Json{{"name", context.name()}, {"zones", zones}};
                             })},
          {"external_addresses", array(profile.external_addresses(),
                                       [](const if_m_a::v1::ExternalAddress& external) {
                                         return Json{{"address", address_text(external.address())},
                                                     {"moves_with_subject", external.moves_with_subject()}};
                                       })},
          {"open_transfers", profile.open_transfers_size()}};
}

Json to_json(const api::Vm& vm) {
  Json out{{"place", vm.place()},
           {"epoch", vm.epoch()},
           {"open_migration", vm.open_migration()},
           {"tde", vm.tde()},
           {"holders", array(vm.holders(), [](const std::string& h) { return h; })}};
  out.update(to_json(vm.subject()));
  return out;
}

Json to_json(const api::Migration& m) {
  return {{"id", m.id()},
          {"state", m.state()},
          {"final", m.final()},
          {"vm", m.subject_id()},
          {"epoch", m.epoch()},
          {"cause", m.cause()},
          {"source", m.source_place()},
          {"destination", m.destination_place()},
          {"vote", m.vote()},
          {"vote_reason", m.vote_reason()},
          {"outcome", m.outcome()},
          {"force", m.force()},
          {"actor", m.actor()},
          {"rollback", m.rollback()},
          {"missing", array(m.missing(), [](const std::string& text) { return text; })},
          {"transfers", array(m.transfers(),
                              [](const api::TransferSummary& transfer) {
                                Json out = to_json(transfer.plan());
                                out["progress"] = transfer.progress();
                                out["records_released"] = transfer.records_released();
                                out["residue"] = transfer.residue();
                                out["classes"] =
                                    array(transfer.feedback(), [](const auto& feedback) { return to_json(feedback); });
                                return out;
                              })},
          {"timeline", array(m.timeline(), [](const api::TimelineEntry& entry) {
             return Json{{"time", wall_time(entry.wall_microseconds())},
                         {"wall_microseconds", entry.wall_microseconds()},
                         {"what", entry.what()}};
           })}};
}

Json to_json(const api::AuditLine& line) {
  return {{"time", wall_time(line.wall_microseconds())},
          {"migration", line.migration_id()},
          {"vm", line.subject_id()},
          {"event", line.event()},
          {"detail", line.detail()}};
}

Json to_json(const api::PlanReply& plan) {
  return {{"vm", to_json(plan.subject())},
          {"source", plan.source_place()},
          {"transfers", array(plan.transfers(), [](const auto& transfer) { return to_json(transfer); })},
          {"findings", array(plan.findings(), [](const auto& finding) { return to_json(finding); })}};
}

Json to_json(const api::TopologyReply& topology) {
  return {{"lines", array(topology.lines(), [](const std::string& line) { return line; })},
          {"transfers", array(topology.transfers(), [](const auto& transfer) { return to_json(transfer); })}};
}

Json to_json(const api::StatusReply& status) {
  Json counters = Json::object();
  for (const auto& [name, value] : status.counters()) counters[name] = value;
  return {{"daemon", status.daemon()},
          {"name", status.name()},
          {"version", status.version()},
          {"connected", status.connected()},
          {"last_error", status.last_error()},
          {"lines", array(status.lines(), [](const std::string& line) { return line; })},
          {"counters", counters}};
}

Json to_json(const api::MoveStatus& move) {
  return {{"notification", move.notification_id()},
          {"migration", move.migration_id()},
          {"vm", move.subject_id()},
          {"source", move.source_place()},
          {"destination", move.destination_place()},
          {"state", move.state()},
          {"instruction", move.instruction()},
          {"detail", move.detail()}};
}

}  // namespace sami::cli
