// What a migration of the SOM's machine hears from agents and TDE, and what it owes them.
#include <fmt/format.h>

#include <algorithm>

#include "protocol/findings.h"
#include "protocol/som_migration.h"
#include "protocol/validation.h"

namespace sami::protocol {

using if_m_a::v1::AgentMessage;
using journal::TransferProgress;

namespace {
constexpr Duration slow_repeat = std::chrono::seconds(5);  // to agents of ended migrations
constexpr std::uint32_t chunk_window = 8;
}  // namespace

// ---- from agents

bool MigrationRun::in_outcome_state() const {
  return final() || record_.state() == journal::RELEASING || record_.state() == journal::ROLLING_BACK;
}

void MigrationRun::from_agent(SomContext& context, Side side, TransferProgress& t, const AgentMessage& message) {
  if (side == Side::Source) lane(t).source.known = true;
  switch (message.message_case()) {
    case AgentMessage::kReady: return on_ready(context, t, message.ready());
    case AgentMessage::kUploadState: return relay_chunk(context, t, message.upload_state());
    case AgentMessage::kProgress: return relay_progress(context, t, message.progress());
    case AgentMessage::kFeedback: return on_feedback(context, side, t, message.feedback());
    case AgentMessage::kReleased: return on_released(context, side, t, message.released());
    case AgentMessage::kRolledBack: return on_rolled_back(side, t, message.rolled_back());
    case AgentMessage::kResync:
      return audit(
          context, "resync",
          fmt::format("transfer {}: generation {} from {}: {}", t.plan().index(), message.resync().generation(),
                      t.plan().source_host(), message.resync().reason().substr(0, 512)));
    default: return;
  }
}

void MigrationRun::on_ready(SomContext& context, TransferProgress& t,
                            const if_m_a::v1::ReadyAndDownloadRequest& ready) {
  if (t.failed() || final() || record_.state() == journal::ROLLING_BACK) return;
  std::uint64_t after = ready.after_generation();
  if (std::exchange(lane(t).destination_lost_it, false)) after = std::max(after, t.generation());
  if (after > t.after_generation()) {
    if (!t.release_sent()) withdraw_ready(context, t, "it asks for its state from the start");
    t.set_after_generation(after);
    lane(t).source.due = Instant{INT64_MIN};
    dirty_ = true;
  }
  if (!t.standby() && !t.ready()) merge_feedback(*t.mutable_feedback(), ready.feedback());
  if (t.prepared() && !ready.feedback_size()) return;
  if (!t.prepared()) {
    audit(context, "feedback",
          fmt::format("transfer {}: {} is prepared", t.plan().index(), t.plan().destination_host()));
    context.step.changed.push_back(id());
    lane(t).source.due = Instant{INT64_MIN};
  }
  t.set_prepared(true);
  dirty_ = true;
}

// The destination does not hold any more what it had reported.
void MigrationRun::withdraw_ready(SomContext& context, TransferProgress& t, const std::string& why) {
  if (t.ready() || t.standby()) {
    audit(context, "feedback",
          fmt::format("transfer {}: {} is not ready any more: {}", t.plan().index(), t.plan().destination_host(), why));
    context.step.changed.push_back(id());
  }
  t.set_ready(false);
  t.set_standby(false);
  lane(t).destination.due = Instant{INT64_MIN};
  dirty_ = true;
}

void MigrationRun::on_feedback(SomContext& context, Side side, TransferProgress& t,
                               const if_m_a::v1::Feedback& feedback) {
  if (in_outcome_state()) return;
  std::string words;
  for (const auto& item : feedback.classes()) {
    if (item.findings_size() > 0) words += "; " + sentence(item);
  }
  const std::string& host = side == Side::Source ? t.plan().source_host() : t.plan().destination_host();
  const auto tell = [&](std::string_view what) {
    audit(context, "feedback", fmt::format("transfer {}: {} {}{}", t.plan().index(), host, what, words));
    context.step.changed.push_back(id());
    dirty_ = true;
  };
  if (feedback.stage() == if_m_a::v1::FEEDBACK_STAGE_FAILED) {
    if (t.failed() || (t.ready() && side == Side::Source)) return;
    merge_feedback(*t.mutable_feedback(), feedback.classes());
    t.set_failed(true);
    return tell("failed");
  }
  if (side == Side::Source || t.failed() || feedback.generation() <= t.after_generation()) return;
  const bool ready = feedback.stage() == if_m_a::v1::FEEDBACK_STAGE_READY;
  if (!ready && feedback.stage() != if_m_a::v1::FEEDBACK_STAGE_STANDBY) return;
  if (t.ready() || (t.standby() && !ready)) return;
  merge_feedback(*t.mutable_feedback(), feedback.classes());
  t.set_prepared(true);
  t.set_standby(true);
  t.set_ready(ready);
  lane(t).destination_lost_it = false;
  tell(ready ? "is ready" : "stands by");
}

void MigrationRun::on_released(SomContext& context, Side side, TransferProgress& t,
                               const if_m_a::v1::Released& released) {
  if (record_.state() != journal::RELEASING && record_.state() != journal::DONE &&
      record_.state() != journal::DONE_WITH_LOSS)
    return;
  const bool first = side == Side::Source ? !t.source_released() : !t.destination_released();
  if (!first) return;
  dirty_ = true;
  context.step.changed.push_back(id());
  if (side == Side::Source) {
    t.set_source_released(true);
    t.set_source_keeps(released.kept() || released.unknown());
    t.set_records_released(released.records());
    t.set_residue(released.residue());
    lane(t).destination.due = Instant{INT64_MIN};
  } else {
    t.set_destination_released(true);
  }
  ClassFeedbacks news;
  for (const auto& item : released.feedback()) {
    if (item.result() == common::v1::CLASS_RESULT_FAILED || (side == Side::Destination && item.result() != 0))
      *news.Add() = item;
  }
  if (released.unknown() && side == Side::Destination)
    *news.Add() = failed_class("", common::v1::FINDING_LEASE_EXPIRED,
                               t.plan().destination_host() + " knows nothing of the transfer");
  merge_feedback(*t.mutable_feedback(), news);
  audit(context, "release",
        fmt::format("transfer {}: {} released{}: {} records, residue {}", t.plan().index(),
                    side == Side::Source ? t.plan().source_host() : t.plan().destination_host(),
                    released.unknown() ? " (it knew nothing of it)" : "", released.records(), released.residue()));
}

void MigrationRun::on_rolled_back(Side side, TransferProgress& t, const if_m_a::v1::RolledBack&) {
  if (record_.state() != journal::ROLLING_BACK && record_.state() != journal::ROLLED_BACK) return;
  if (side == Side::Source)
    t.set_source_rolled_back(true);
  else
    t.set_destination_rolled_back(true);
  dirty_ = true;
}

// It would never become smaller: the transfer cannot be done.
void MigrationRun::refuse_chunk(SomContext& context, TransferProgress& t, std::size_t octets) {
  if (t.ready() || t.failed()) return;
  const std::string detail = fmt::format("{} uploaded a chunk of {} octets, expected at most {}",
                                         t.plan().source_host(), octets, maximum_chunk);
  t.set_failed(true);
  dirty_ = true;
  ClassFeedbacks news;
  *news.Add() = failed_class("", common::v1::FINDING_MALFORMED, detail);
  merge_feedback(*t.mutable_feedback(), news);
  audit(context, "refused", fmt::format("transfer {}: {}", t.plan().index(), detail));
}

// As bytes, and nothing of it is kept.
void MigrationRun::relay_chunk(SomContext& context, TransferProgress& t, const if_m_a::v1::UploadState& upload) {
  if (final() || record_.state() == journal::ROLLING_BACK || upload.chunk().empty()) return;
  if (upload.chunk().size() > maximum_chunk) return refuse_chunk(context, t, upload.chunk().size());
  if (!context.peers.registered(t.plan().destination_host())) return;
  auto& download = *to_agent(context, t.plan().destination_host()).mutable_download_state();
  *download.mutable_transfer() = upload.transfer();
  download.set_chunk(upload.chunk());
}

void MigrationRun::relay_progress(SomContext& context, TransferProgress& t, const if_m_a::v1::Progress& progress) {
  if (final() || record_.state() == journal::ROLLING_BACK) return;
  if (progress.generation() > t.generation()) {
    t.set_generation(progress.generation());
    dirty_ = true;
  }
  const std::pair reached{progress.generation(), progress.received_through()};
  if (reached > lane(t).progress) {
    lane(t).progress = reached;
    const bool completing = record_.outcome() == common::v1::OUTCOME_AT_DESTINATION &&
                            (record_.state() == journal::SWITCHING || record_.state() == journal::READY);
    if (completing && !deadline_passed_) state_deadline_ = context.now + context.config.completion_deadline;
  }
  if (!context.peers.registered(t.plan().source_host())) return;
  *to_agent(context, t.plan().source_host()).mutable_progress() = progress;
}

void MigrationRun::agent_lists(SomContext& context, const std::string& host,
                               const google::protobuf::RepeatedPtrField<if_m_a::v1::TransferStatus>& open) {
  const auto listed = [&](const TransferProgress& t, if_m_a::v1::TransferRole role) {
    return std::find_if(open.begin(), open.end(), [&](const auto& status) {
      return status.role() == role && status.transfer().migration_id() == id() &&
             status.transfer().transfer() == t.plan().index();
    });
  };
  for (TransferProgress& t : *record_.mutable_transfers()) {
    if (is_retained(t.plan())) continue;
    if (t.plan().source_host() == host)
      lane(t).source.known = listed(t, if_m_a::v1::TRANSFER_ROLE_SOURCE) != open.end();
    if (t.plan().destination_host() != host || in_outcome_state() || !t.prepared() || t.failed()) continue;
    if (const auto status = listed(t, if_m_a::v1::TRANSFER_ROLE_DESTINATION); status != open.end()) {
      const bool receiving = status->state() == if_m_a::v1::TRANSFER_STATE_RECEIVING;
      const bool lost =
          t.ready() ? receiving || status->state() == if_m_a::v1::TRANSFER_STATE_STANDBY : t.standby() && receiving;
      if (lost) withdraw_ready(context, t, "it is receiving again");
      continue;
    }
    withdraw_ready(context, t, "it does not know of the transfer");
    t.set_prepared(false);
    lane(t).destination_lost_it = true;
  }
}

void MigrationRun::agent_registered(const std::string& host) {
  for (const TransferProgress& t : record_.transfers()) {
    if (t.plan().source_host() == host) lane(t).source.due = Instant{INT64_MIN};
    if (t.plan().destination_host() == host) lane(t).destination.due = Instant{INT64_MIN};
  }
}

// ---- to agents

Duration MigrationRun::repeat_after(const SomContext& context) const {
  if (final()) return slow_repeat;
  return record_.state() == journal::IN_DOUBT ? 4 * context.config.repeat_interval : context.config.repeat_interval;
}

bool MigrationRun::leftovers_may_run() const { return all(is_ready_or_failed, false); }

bool MigrationRun::wants(const SomContext& context, const TransferProgress& t, Side side) const {
  const auto state = record_.state() == journal::IN_DOUBT ? record_.doubtful_in() : record_.state();
  if (is_retained(t.plan()) ||
      !context.peers.registered(side == Side::Source ? t.plan().source_host() : t.plan().destination_host()))
    return false;
  if (t.plan().leftover() && !in_outcome_state()) {
    if (state != journal::SWITCHING && state != journal::READY) return false;
    if (!leftovers_may_run()) return false;
  }
  return side == Side::Source ? wants_source(t, state) : wants_destination(context, t, state);
}

bool MigrationRun::needs_upload(const TransferProgress& t) const {
  return !lane(t).source.known || t.generation() <= t.after_generation();
}

bool MigrationRun::wants_source(const TransferProgress& t, journal::MigrationState state) const {
  switch (state) {
    case journal::PRECOPY:
    case journal::STANDBY: return t.prepared() && !t.failed() && needs_upload(t);
    case journal::SWITCHING:
    case journal::READY:
      if (state == journal::SWITCHING && record_.vote() == common::v1::VOTE_NO_GO && lane(t).source.finalized)
        return true;
      return t.prepared() && !t.failed() && !t.ready();
    case journal::RELEASING:
    case journal::DONE:
    case journal::DONE_WITH_LOSS: return !t.source_released();
    case journal::ROLLING_BACK:
    case journal::ROLLED_BACK: return !t.source_rolled_back();
    default: return false;
  }
}

bool MigrationRun::wants_destination(const SomContext& context, const TransferProgress& t,
                                     journal::MigrationState state) const {
  switch (state) {
    case journal::PREPARING: return !is_prepared(t);
    case journal::PRECOPY:
    case journal::STANDBY: return !is_standing_by(t);
    case journal::SWITCHING:
    case journal::READY: return !is_ready_or_failed(t);
    case journal::RELEASING: return !t.destination_released() && (t.source_released() || context.now >= halfway_);
    case journal::DONE:
    case journal::DONE_WITH_LOSS: return !t.destination_released();
    case journal::ROLLING_BACK:
    case journal::ROLLED_BACK: return !t.destination_rolled_back();
    default: return false;
  }
}

common::v1::TransferReference MigrationRun::reference(const TransferProgress& t) const {
  common::v1::TransferReference reference;
  reference.set_migration_id(id());
  reference.set_transfer(t.plan().index());
  reference.set_epoch(record_.epoch());
  reference.set_subject_id(record_.subject().id());
  return reference;
}

if_m_a::v1::MasterMessage& MigrationRun::to_agent(SomContext& context, const std::string& host) const {
  context.step.to_agents.push_back({host, {}});
  return context.step.to_agents.back().message;
}

void MigrationRun::send_upload(SomContext& context, const TransferProgress& t) const {
  auto& upload = *to_agent(context, t.plan().source_host()).mutable_upload_request();
  *upload.mutable_transfer() = reference(t);
  *upload.mutable_subject() = record_.subject();
  *upload.mutable_plan() = t.plan();
  *upload.mutable_classes() = record_.classes();
  upload.set_window(chunk_window);
  upload.set_after_generation(t.after_generation());
  upload.set_conflict_rule(record_.conflict_rule());
  upload.set_outcome(record_.outcome());
}

void MigrationRun::send_release(SomContext& context, TransferProgress& t, Side side) {
  const bool source = side == Side::Source;
  auto& release = *to_agent(context, source ? t.plan().source_host() : t.plan().destination_host()).mutable_release();
  *release.mutable_transfer() = reference(t);
  release.set_role(source ? if_m_a::v1::TRANSFER_ROLE_SOURCE : if_m_a::v1::TRANSFER_ROLE_DESTINATION);
  if (!t.release_sent()) dirty_ = true;
  t.set_release_sent(true);
  if (!source) return;
  const bool lost = !t.ready() || t.destination_released() || final() || context.now >= halfway_;
  release.set_grace_ms(context.config.grace_ms);
  release.set_destination_lost(lost);
  for (const auto& feedback : t.feedback()) {
    if (feedback.result() == common::v1::CLASS_RESULT_FAILED) release.add_keep_classes(feedback.state_class());
  }
}

void MigrationRun::send_source(SomContext& context, TransferProgress& t, Lane& lane) {
  const auto state = record_.state() == journal::IN_DOUBT ? record_.doubtful_in() : record_.state();
  if (state == journal::RELEASING || state == journal::DONE || state == journal::DONE_WITH_LOSS) {
    if (state == journal::RELEASING && t.ready() && lane.source.known && needs_upload(t)) send_upload(context, t);
    return send_release(context, t, Side::Source);
  }
  if (state == journal::ROLLING_BACK || state == journal::ROLLED_BACK) {
    auto& rollback = *to_agent(context, t.plan().source_host()).mutable_rollback();
    *rollback.mutable_transfer() = reference(t);
    return rollback.set_role(if_m_a::v1::TRANSFER_ROLE_SOURCE);
  }
  if (needs_upload(t)) send_upload(context, t);
  if (state != journal::SWITCHING && state != journal::READY) return;
  auto& finalize = *to_agent(context, t.plan().source_host()).mutable_finalize();
  *finalize.mutable_transfer() = reference(t);
  finalize.set_thaw(record_.vote() == common::v1::VOTE_NO_GO);
  finalize.set_outcome(record_.outcome());
  lane.source.finalized = true;
}

void MigrationRun::send_destination(SomContext& context, TransferProgress& t) {
  if (record_.state() == journal::RELEASING || record_.state() == journal::DONE ||
      record_.state() == journal::DONE_WITH_LOSS)
    return send_release(context, t, Side::Destination);
  auto& message = to_agent(context, t.plan().destination_host());
  if (record_.state() == journal::ROLLING_BACK || record_.state() == journal::ROLLED_BACK) {
    *message.mutable_rollback()->mutable_transfer() = reference(t);
    return message.mutable_rollback()->set_role(if_m_a::v1::TRANSFER_ROLE_DESTINATION);
  }
  auto& ready = *message.mutable_get_ready();
  *ready.mutable_transfer() = reference(t);
  *ready.mutable_subject() = record_.subject();
  *ready.mutable_plan() = t.plan();
  *ready.mutable_classes() = record_.classes();
  ready.set_cause(record_.cause());
  ready.set_conflict_rule(record_.conflict_rule());
  ready.set_lease_ms(context.config.lease_ms);
  ready.set_outcome(record_.outcome());
}

void MigrationRun::send_due(SomContext& context) {
  const Instant again = context.now + repeat_after(context);
  for (TransferProgress& t : *record_.mutable_transfers()) {
    Lane& its = lane(t);
    if (its.destination.due <= context.now && wants(context, t, Side::Destination)) {
      send_destination(context, t);
      its.destination.due = again;
    }
    if (its.source.due <= context.now && wants(context, t, Side::Source)) {
      send_source(context, t, its);
      its.source.due = again;
    }
  }
  if (tde_due_ <= context.now && tde_is_owed() && context.peers.authorized_tde(record_.tde())) {
    say_to_tde(context);
    tde_due_ = again;
  }
}

void MigrationRun::plan_wakeup(const SomContext& context) {
  next_ = std::min(state_deadline_, expecting_outcome() ? outcome_deadline_ : Instant::never());
  if (context.now < halfway_) next_ = std::min(next_, halfway_);
  for (const TransferProgress& t : record_.transfers()) {
    if (wants(context, t, Side::Source)) next_ = std::min(next_, lane(t).source.due);
    if (wants(context, t, Side::Destination)) next_ = std::min(next_, lane(t).destination.due);
  }
  if (tde_is_owed() && context.peers.authorized_tde(record_.tde())) next_ = std::min(next_, tde_due_);
}

// ---- to the TDE

bool MigrationRun::tde_is_owed() const {
  if (final()) return false;
  if (record_.state() == journal::IN_DOUBT) return true;
  if (record_.outcome() != common::v1::OUTCOME_UNSPECIFIED) return false;
  return record_.vote() != common::v1::VOTE_UNSPECIFIED || record_.state() == journal::STANDBY;
}

void MigrationRun::tde_returned() { tde_due_ = Instant{INT64_MIN}; }

void MigrationRun::say_concluded(SomContext& context) const {
  const auto say = [&](const std::string& tde, const std::string& notification_id) {
    context.step.to_tdes.push_back({tde, {}});
    auto& concluded = *context.step.to_tdes.back().message.mutable_concluded();
    concluded.set_notification_id(notification_id);
    concluded.set_migration_id(id());
    concluded.set_final_state(std::string(to_string(record_.state())));
  };
  say(record_.tde(), record_.notification_id());
  for (const auto& alias : record_.aliases()) say(alias.tde(), alias.notification_id());
}

void MigrationRun::say_to_tde(SomContext& context) {
  if (final()) return say_concluded(context);
  if (!tde_is_owed()) return;
  context.step.to_tdes.push_back({record_.tde(), {}});
  auto& message = context.step.to_tdes.back().message;
  if (record_.state() == journal::IN_DOUBT) {
    auto& request = *message.mutable_outcome_request();
    request.set_notification_id(record_.notification_id());
    request.set_migration_id(id());
    request.set_subject_id(record_.subject().id());
    request.set_source_place(record_.source_place());
    request.set_destination_place(record_.destination_place());
  } else if (record_.vote() != common::v1::VOTE_UNSPECIFIED) {
    auto& verdict = *message.mutable_verdict();
    verdict.set_notification_id(record_.notification_id());
    verdict.set_migration_id(id());
    verdict.set_vote(record_.vote());
    verdict.set_reason(record_.vote_reason());
    for (const TransferProgress& t : record_.transfers()) verdict.mutable_feedback()->MergeFrom(t.feedback());
  } else {
    auto& standing = *message.mutable_standing();
    standing.set_notification_id(record_.notification_id());
    standing.set_migration_id(id());
    standing.set_standby(true);
  }
}

}  // namespace sami::protocol
