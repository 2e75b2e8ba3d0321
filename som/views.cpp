#include "som/views.h"

#include <fmt/format.h>

#include <set>

namespace sami::som {
namespace {

using protocol::journal::Migration;
using protocol::journal::TransferProgress;

std::string cause_word(common::v1::Cause cause) {
  switch (cause) {
    case common::v1::CAUSE_VM_MIGRATION: return "vm-migration";
    case common::v1::CAUSE_PATH_FAILURE: return "path-failure";
    case common::v1::CAUSE_LOAD_BALANCE: return "load-balance";
    case common::v1::CAUSE_MAINTENANCE: return "maintenance";
    default: return "";
  }
}

std::string vote_word(common::v1::Vote vote) {
  switch (vote) {
    case common::v1::VOTE_GO: return "GO";
    case common::v1::VOTE_NO_GO: return "NO_GO";
    default: return "";
  }
}

std::string outcome_word(common::v1::Outcome outcome) {
  switch (outcome) {
    case common::v1::OUTCOME_AT_SOURCE: return "AT_SOURCE";
    case common::v1::OUTCOME_AT_DESTINATION: return "AT_DESTINATION";
    default: return "";
  }
}

std::string hosts(const Migration& migration, bool destinations) {
  std::set<std::string> names;
  for (const auto& transfer : migration.transfers())
    names.insert(destinations ? transfer.plan().destination_host() : transfer.plan().source_host());
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "no State Host" : text;
}

std::string place(const std::string& name, const char* otherwise) { return name.empty() ? otherwise : name; }

}  // namespace

std::string progress_word(const TransferProgress& transfer) {
  if (transfer.source_rolled_back() && transfer.destination_rolled_back()) return "rolled back";
  if (transfer.source_released() && transfer.destination_released()) return "released";
  if (transfer.failed()) return "failed";
  if (transfer.ready()) return "ready";
  if (transfer.standby()) return "standby";
  if (transfer.prepared()) return "prepared";
  return "";
}

std::string rollback_sentence(const Migration& migration) {
  namespace state = protocol::journal;
  const std::string source = place(migration.source_place(), "its old place");
  const std::string destination = place(migration.destination_place(), "its new place");
  const bool moved = migration.outcome() == common::v1::OUTCOME_AT_DESTINATION;
  switch (migration.state()) {
    case state::PLANNED:
    case state::PREPARING:
    case state::PRECOPY:
    case state::STANDBY:
    case state::SWITCHING:
    case state::READY:
      if (moved)
        return fmt::format("no: the VM runs at {} and its state is following it; move it back to {} when this has "
                           "ended", destination, source);
      return fmt::format("yes: resume the VM at {} (cancel the move at the hypervisor{}); {} still holds every record, "
                         "and {} deletes only what this migration installed",
                         source, migration.vote() == common::v1::VOTE_UNSPECIFIED ? ", or abort this migration" : "",
                         hosts(migration, false), hosts(migration, true));
    case state::RELEASING:
      return fmt::format("no: the VM runs at {} and {} is releasing its state; move it back to {} when this has ended",
                         destination, hosts(migration, false), source);
    case state::DONE:
    case state::DONE_WITH_LOSS:
      return fmt::format("no: it has ended and the VM runs at {}; a new move brings it back to {}", destination,
                         source);
    case state::ROLLING_BACK:
      return fmt::format("yes: it is under way: the VM runs at {}, and {} deletes what this migration installed",
                         source, hosts(migration, true));
    case state::ROLLED_BACK:
      return fmt::format("yes: it was rolled back; the VM runs at {} with the state it had", source);
    case state::IN_DOUBT:
      return fmt::format("yes, if the VM runs at {}: both sides hold everything; find out where it runs and say "
                         "`sami migration resolve {} source` (or destination)", source, migration.id());
    default: return "no: the state of this migration is not known";
  }
}

api::Host view(const protocol::HostView& host) {
  api::Host out;
  out.set_name(host.host);
  out.set_connected(host.connected);
  out.set_drained(host.drained);
  *out.mutable_profile() = host.profile;
  return out;
}

api::Vm view(const protocol::SubjectView& subject) {
  api::Vm out;
  if (subject.subject) *out.mutable_subject() = *subject.subject;
  out.mutable_subject()->set_id(subject.record.id());
  out.set_place(subject.record.place());
  out.set_epoch(subject.record.epoch());
  out.set_open_migration(subject.record.open_migration());
  out.set_tde(subject.tde);
  for (const auto& holder : subject.record.holders())
    out.add_holders(fmt::format("{}/{}", holder.host(), holder.context().empty() ? "default" : holder.context()));
  return out;
}

api::Migration view(const Migration& migration) {
  api::Migration out;
  out.set_id(migration.id());
  out.set_state(std::string(protocol::to_string(migration.state())));
  out.set_subject_id(migration.subject().id());
  out.set_epoch(migration.epoch());
  out.set_cause(cause_word(migration.cause()));
  out.set_source_place(migration.source_place());
  out.set_destination_place(migration.destination_place());
  out.set_vote(vote_word(migration.vote()));
  out.set_vote_reason(migration.vote_reason());
  out.set_outcome(outcome_word(migration.outcome()));
  out.set_force(migration.force());
  out.set_actor(migration.actor());
  for (const auto& transfer : migration.transfers()) {
    auto& summary = *out.add_transfers();
    *summary.mutable_plan() = transfer.plan();
    summary.set_progress(progress_word(transfer));
    *summary.mutable_feedback() = transfer.feedback();
    summary.set_records_released(transfer.records_released());
    summary.set_residue(transfer.residue());
  }
  *out.mutable_missing() = migration.missing();
  for (const auto& entry : migration.timeline()) {
    auto& line = *out.add_timeline();
    line.set_wall_microseconds(entry.wall_microseconds());
    line.set_what(entry.what());
  }
  out.set_final(protocol::is_final(migration.state()));
  out.set_rollback(rollback_sentence(migration));
  return out;
}

}  // namespace sami::som
