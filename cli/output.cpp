#include "cli/output.h"

#include <fmt/format.h>

#include "cli/json.h"

namespace sami::cli {
namespace {

std::string dump(const Json& json) { return json.dump(2) + "\n"; }

template <typename Items>
std::string dump_all(const Items& items) {
  Json out = Json::array();
  for (const auto& item : items) out.push_back(to_json(item));
  return dump(out);
}

std::string addresses_text(const common::v1::Subject& subject) {
  std::string text;
  for (const auto& interface : subject.interfaces())
    for (const auto& address : interface.addresses())
      text += fmt::format("{}{}@{}", text.empty() ? "" : ",", address_text(address), interface.vn_name());
  return text;
}

std::string classes_text(const if_m_a::v1::Register& profile) {
  std::string text;
  for (const auto& state_class : profile.classes()) text += (text.empty() ? "" : ",") + state_class.state_class();
  return text;
}

}  // namespace

std::string show_hosts(const api::ListHostsReply& reply, bool json) {
  if (json) return dump_all(reply.hosts());
  std::vector<std::vector<std::string>> rows;
  for (const auto& host : reply.hosts())
    rows.push_back({host.name(), host.connected() ? "yes" : "no", host.drained() ? "yes" : "no",
                    classes_text(host.profile()), std::to_string(host.profile().open_transfers_size())});
  return render_table({"HOST", "CONNECTED", "DRAINED", "CLASSES", "OPEN_TRANSFERS"}, rows);
}

std::string show_host(const api::Host& host, bool json) {
  if (json) return dump(to_json(host));
  std::string out = fmt::format("{}  connected: {}  drained: {}\n", host.name(), host.connected() ? "yes" : "no",
                                host.drained() ? "yes" : "no");
  for (const auto& state_class : host.profile().classes()) {
    out += fmt::format("class {}  {}  capacity {}\n", state_class.state_class(), state_class.representation(),
                       state_class.capacity());
    for (const auto& what : state_class.not_carried()) out += fmt::format("  does not carry {}\n", what);
  }
  for (const auto& context : host.profile().contexts())
    for (const auto& [vn, zone] : context.vn_zone())
      out += fmt::format("context {}  VN {} is zone {}\n", context.name(), vn, zone);
  for (const auto& external : host.profile().external_addresses())
    out += fmt::format("external address {}  {}\n", address_text(external.address()),
                       external.moves_with_subject() ? "moves with subject" : "shared");
  return out;
}

std::string show_vms(const api::ListVmsReply& reply, bool json) {
  if (json) return dump_all(reply.vms());
  std::vector<std::vector<std::string>> rows;
  for (const auto& vm : reply.vms())
    rows.push_back({vm.subject().id(), vm.place(), addresses_text(vm.subject()), std::to_string(vm.epoch()),
                    vm.open_migration(), vm.tde()});
  return render_table({"VM", "PLACE", "ADDRESSES", "EPOCH", "MIGRATION", "TDE"}, rows);
}

std::string show_vm(const api::Vm& vm, bool json) {
  if (json) return dump(to_json(vm));
  std::string out =
      fmt::format("{}  on {}  epoch {}  migration {}\n", vm.subject().id(), vm.place().empty() ? "-" : vm.place(),
                  vm.epoch(), vm.open_migration().empty() ? "none" : vm.open_migration());
  out += "addresses " + addresses_text(vm.subject()) + "\n";
  for (const auto& holder : vm.holders()) out += "its state may still be held by " + holder + "\n";
  return out;
}

std::string show_migrations(const api::ListMigrationsReply& reply, bool json) {
  if (json) return dump_all(reply.migrations());
  std::vector<std::vector<std::string>> rows;
  for (const auto& m : reply.migrations())
    rows.push_back({m.id(), m.subject_id(), m.state(), m.source_place(), m.destination_place(), m.vote(),
                    outcome_text(m), m.timeline().empty() ? "" : wall_time(m.timeline(0).wall_microseconds())});
  return render_table({"ID", "VM", "STATE", "FROM", "TO", "VOTE", "RUNS_AT", "BEGAN"}, rows);
}

std::string show_migration(const api::Migration& m, bool json) {
  if (json) return dump(to_json(m));
  std::string out = fmt::format("{}  {}  VM {}  {} -> {}  epoch {}\n", m.id(), m.state(), m.subject_id(),
                                m.source_place(), m.destination_place(), m.epoch());
  out += fmt::format("vote {}{}{}\n", m.vote().empty() ? "none yet" : m.vote(), m.vote_reason().empty() ? "" : ": ",
                     m.vote_reason());
  out += fmt::format("runs at {}\n", m.outcome().empty() ? "unknown yet" : outcome_text(m));
  if (!m.rollback().empty()) out += "rollback " + m.rollback() + "\n";
  if (m.force()) out += "forced" + (m.actor().empty() ? "" : " by " + m.actor()) + "\n";
  for (const auto& missing : m.missing()) out += "missing: " + missing + "\n";
  for (const auto& transfer : m.transfers()) {
    out += fmt::format("transfer {}  {}\n", transfer_text(transfer.plan()), transfer.progress());
    for (const auto& feedback : transfer.feedback()) {
      out += fmt::format("  {}  {}  {} records\n", feedback.state_class(), class_result_text(feedback),
                         feedback.records());
      for (const auto& finding : feedback.findings()) out += "    " + finding_text(finding) + "\n";
    }
  }
  const std::int64_t start = m.timeline().empty() ? 0 : m.timeline(0).wall_microseconds();
  for (const auto& entry : m.timeline())
    out += fmt::format("{}  {:>+10.1f} ms  {}\n", wall_time(entry.wall_microseconds()),
                       static_cast<double>(entry.wall_microseconds() - start) / 1000.0, entry.what());
  return out;
}

std::string show_progress(const api::Migration& m, bool json) {
  if (json) return to_json(m).dump() + "\n";
  std::string transfers;
  for (const auto& transfer : m.transfers())
    transfers += fmt::format("  {}->{} {}", transfer.plan().source_host(), transfer.plan().destination_host(),
                             transfer.progress());
  const auto when =
      m.timeline().empty() ? std::string("-") : wall_time(m.timeline(m.timeline_size() - 1).wall_microseconds());
  return fmt::format("{}  {}  {}{}{}\n", when, m.id(), m.state(), m.vote().empty() ? "" : "  vote " + m.vote(),
                     transfers);
}

std::string show_plan(const api::PlanReply& reply, bool json) {
  if (json) return dump(to_json(reply));
  std::string out = fmt::format("{} is on {}\n", reply.subject().id(), reply.source_place());
  if (reply.transfers().empty()) out += "no State Host changes: nothing to move\n";
  for (const auto& transfer : reply.transfers()) out += "transfer " + transfer_text(transfer) + "\n";
  for (const auto& finding : reply.findings()) out += "finding " + finding_text(finding) + "\n";
  if (reply.findings().empty()) out += "nothing stands in the way\n";
  return out;
}

std::string show_topology(const api::TopologyReply& reply, bool json) {
  if (json) return dump(to_json(reply));
  std::string out;
  for (const auto& line : reply.lines()) out += line + "\n";
  for (const auto& transfer : reply.transfers()) out += "transfer " + transfer_text(transfer) + "\n";
  return out;
}

std::string show_audit(const api::AuditReply& reply, bool json) {
  if (json) return dump_all(reply.lines());
  std::vector<std::vector<std::string>> rows;
  for (const auto& line : reply.lines())
    rows.push_back(
        {wall_time(line.wall_microseconds()), line.migration_id(), line.subject_id(), line.event(), line.detail()});
  return render_table({"TIME", "MIGRATION", "VM", "EVENT", "DETAIL"}, rows);
}

std::string show_status(const api::StatusReply& reply, bool json) {
  if (json) return dump(to_json(reply));
  std::string out = fmt::format("sami-{} {}  version {}", reply.daemon(), reply.name(), reply.version());
  if (reply.daemon() != "som") out += fmt::format("  connected to the SOM: {}", reply.connected() ? "yes" : "no");
  out += "\n";
  if (!reply.last_error().empty()) out += "last error: " + reply.last_error() + "\n";
  for (const auto& line : reply.lines()) out += line + "\n";
  for (const auto& [name, value] :
       std::map<std::string, std::uint64_t>(reply.counters().begin(), reply.counters().end()))
    out += fmt::format("{} {}\n", name, value);
  return out;
}

std::string show_move(const api::MoveStatus& move, bool json) {
  if (json) return to_json(move).dump() + "\n";
  return fmt::format("{}  {}  {} -> {}  {}{}{}{}{}\n", move.notification_id(), move.subject_id(), move.source_place(),
                     move.destination_place(), move.state(), move.instruction().empty() ? "" : "  ", move.instruction(),
                     move.detail().empty() ? "" : ": ", move.detail());
}

}  // namespace sami::cli
