#include "protocol/soa_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/findings.h"

namespace sami::protocol {

using namespace if_m_a::v1;  // the states' names

namespace {
constexpr std::uint64_t maximum_generation = 1ULL << 62;
}

SourceTransfer::SourceTransfer(SoaContext& context, journal::AgentTransfer record, bool recovered)
    : TransferBase(std::move(record), context.now), window_(context.config.window), recovered_(recovered) {
  renew_lease(context.config, context.now);
  std::set<std::string> seen;
  for (const auto& requirement : record_.classes()) {
    const auto* profile = find_profile(context.config, requirement.state_class());
    if (!seen.insert(requirement.state_class()).second) continue;
    if (profile == nullptr && requirement.essential() && !recovered) {
      fail(context, failed_class(requirement.state_class(), common::v1::FINDING_UNSUPPORTED,
                                 context.config.host + " has no such state class"));
    }
    if (profile == nullptr) continue;
    Class c;
    c.name = requirement.state_class();
    c.essential = requirement.essential();
    c.needs_barrier = profile->needs_barrier;
    classes_.push_back(std::move(c));
  }
  if (recovered) {
    residue_full_ = true;
    stream_.start(record_.generation());
    if (record_.state() == TRANSFER_STATE_FOLLOWING) start_generation(context, 0, "the agent restarted");
    return;
  }
  if (record_.state() != TRANSFER_STATE_FOLLOWING) return;
  stream_.start(record_.generation());
  save(context);
  begin(context, Activity::Snapshot);
}

bool SourceTransfer::leased() const {
  return end_ == End::No && (record_.state() == TRANSFER_STATE_FOLLOWING || record_.state() == TRANSFER_STATE_FAILED);
}

// ---- the master

bool SourceTransfer::still_sends() const {
  return end_ == End::No || (end_ == End::Released && !stopped_ && !destination_lost_);
}

void SourceTransfer::take_terms(SoaContext& context, common::v1::Outcome outcome, common::v1::ConflictRule rule) {
  const bool news = (outcome != 0 && outcome != record_.outcome()) || (rule != 0 && rule != record_.conflict_rule());
  if (!news) return;
  if (outcome != 0) record_.set_outcome(outcome);
  if (rule != 0) record_.set_conflict_rule(rule);
  rebuild_scope();
  save(context);
}

void SourceTransfer::on_upload_request(SoaContext& context, const UploadRequest& request) {
  if (!still_sends()) return;
  if (record_.state() == TRANSFER_STATE_FAILED) return say_failed(context);
  take_terms(context, request.outcome(), request.conflict_rule());
  window_ = std::clamp<std::uint32_t>(request.window() == 0 ? context.config.window : request.window(), 1,
                                      context.config.window);
  if (request.after_generation() < record_.generation() || request.after_generation() >= maximum_generation) return;
  if (record_.state() == TRANSFER_STATE_RELEASING) residue_full_ = true;
  start_generation(context, request.after_generation(), "the destination asks for its state from the start");
}

void SourceTransfer::on_finalize(SoaContext& context, const Finalize& finalize) {
  if (end_ != End::No) return;
  if (record_.state() == TRANSFER_STATE_FAILED) return say_failed(context);
  take_terms(context, finalize.outcome(), common::v1::CONFLICT_RULE_UNSPECIFIED);
  thaw_ = thaw_ || finalize.thaw();
  if (record_.state() == TRANSFER_STATE_FOLLOWING)
    enter(context, TRANSFER_STATE_FINALIZED);
  else if (record_.state() == TRANSFER_STATE_FINALIZED && recovered_)
    start_generation(context, 0, "the agent restarted");
  recovered_ = false;
  choose(context);
}

void SourceTransfer::on_progress(SoaContext& context, const Progress& progress) {
  if (!still_sends() || record_.state() == TRANSFER_STATE_FAILED || recovered_) return;
  if (progress.generation() >= maximum_generation || progress.generation() < record_.generation()) return;
  if (progress.generation() > record_.generation())
    return start_generation(context, progress.generation(), "the destination has seen a higher generation");
  const auto before = stream_.unacknowledged().size();
  if (!stream_.acknowledge(progress.received_through()))
    return start_generation(context, 0, "the destination has more than was sent");
  if (stream_.unacknowledged().size() != before) repeat_due_ = context.now + context.config.repeat_interval;
  send_chunks(context);
  choose(context);
}

void SourceTransfer::on_release(SoaContext& context, const Release& release) {
  if (end_ == End::RolledBack || end_ == End::Forgotten) return;
  if (stopped_) return;  // sweeping, or about to answer
  grace_ms_ = std::min<std::uint32_t>(release.grace_ms(), 60'000);
  destination_lost_ = release.destination_lost();
  for (Class& c : classes_) {
    c.kept = std::any_of(release.keep_classes().begin(), release.keep_classes().end(),
                         [&](const auto& name) { return name.empty() || name == c.name; });
  }
  if (record_.state() == TRANSFER_STATE_FAILED) {
    destination_lost_ = true;
    end_ = End::Released;
    return choose(context);
  }
  if (record_.state() == TRANSFER_STATE_FOLLOWING) {
    residue_full_ = true;
    enter(context, TRANSFER_STATE_FINALIZED);
  }
  if (record_.state() == TRANSFER_STATE_FINALIZED) enter(context, TRANSFER_STATE_RELEASING);
  end_ = End::Released;
  recovered_ = false;
  release_heard_ = true;
  if (activity_ != Activity::Residue && activity_ != Activity::Stop && activity_ != Activity::Sweep)
    activity_ = Activity::Idle;
  if (destination_lost_ && activity_ == Activity::Residue) activity_ = Activity::Idle;
  choose(context);
}

void SourceTransfer::on_rollback(SoaContext& context) {
  if (end_ == End::RolledBack) return;
  if (record_.state() == TRANSFER_STATE_RELEASING) return;  // the outcome was the other one
  end_ = End::RolledBack;
  if (activity_ != Activity::Stop) activity_ = Activity::Idle;
  choose(context);
}

// ---- what is next

void SourceTransfer::tick(SoaContext& context) {
  if (leased() && context.now >= lease_until_) {
    audit(context, "lease", "the lease expired: the source forgets, nothing was altered");
    end_ = End::Forgotten;
    activity_ = Activity::Idle;
  }
  pump(context);
  choose(context);
  if (repeat_due_ <= context.now) repeat_chunks(context);
}

Instant SourceTransfer::next_deadline() const {
  if (ending_) return Instant::never();
  Instant next = leased() ? lease_until_ : Instant::never();
  if (!stream_.unacknowledged().empty()) next = std::min(next, repeat_due_);
  for (const Class& c : classes_) {
    if (!c.plan.empty() && c.calling == Call::None) next = std::min(next, c.retry_at);
  }
  if (activity_ != Activity::Idle) return next;
  if (stopped_) return std::min(next, sweep_due_);
  const bool polls =
      (record_.state() == TRANSFER_STATE_FOLLOWING || record_.state() == TRANSFER_STATE_FINALIZED) && !recovered_;
  return polls && end_ == End::No ? std::min(next, poll_due_) : next;
}

// Begins the next activity, if none is going on and something is to be done.
void SourceTransfer::choose(SoaContext& context) {
  if (activity_ != Activity::Idle || ending_) return;
  if (end_ != End::No) {
    if (choose_ending(context)) return;
  } else if (record_.state() == TRANSFER_STATE_FAILED) {
    if (record_.barrier()) begin(context, Activity::Thaw);
  } else if (record_.state() == TRANSFER_STATE_FINALIZED && !recovered_) {
    if (thaw_ && record_.barrier()) return begin(context, Activity::Thaw);
    if (!snapshot_done_) return begin(context, Activity::Snapshot);
    if (!final_begun_) return begin(context, Activity::Final);
    if (context.now >= poll_due_) begin(context, Activity::Poll);
  } else if (record_.state() == TRANSFER_STATE_FOLLOWING) {
    if (!snapshot_done_) return begin(context, Activity::Snapshot);
    if (context.now >= poll_due_) begin(context, stream_.everything_sent() ? Activity::Delta : Activity::Poll);
  }
}

bool SourceTransfer::choose_ending(SoaContext& context) {
  const bool deletes = end_ == End::Released && !destination_lost_;
  if (deletes && !stopped_) {
    const bool retained = record_.plan().disposition() == common::v1::DISPOSITION_COPY_AND_RETAIN;
    if (retained && record_.barrier()) return begin(context, Activity::Thaw), true;
    if (!residue_begun_) {
      residue_begun_ = true;
      start_generation(context, 0, "");
      return true;
    }
    if (!stream_.everything_acknowledged()) return true;  // Progress brings it on
  }
  if (!stopped_) return begin(context, Activity::Stop), true;
  if (deletes && record_.plan().disposition() == common::v1::DISPOSITION_MOVE) {
    if (grace_end_ == Instant::never()) {
      grace_end_ = context.now + std::chrono::milliseconds(grace_ms_);
      sweep_due_ = context.now;
    }
    if (context.now >= sweep_due_) return begin(context, Activity::Sweep), true;
    return true;
  }
  finish(context);
  return true;
}

// A higher generation; in RELEASING it has one round, the residue.
void SourceTransfer::start_generation(SoaContext& context, std::uint64_t above, const std::string& reason) {
  record_.set_generation(std::max(record_.generation(), above) + 1);
  save(context);
  stream_.start(record_.generation(), record_.state() == TRANSFER_STATE_RELEASING);
  repeat_due_ = Instant::never();
  recovered_ = false;
  if (!reason.empty()) {
    ++resyncs_;
    auto& resync = *send(context).mutable_resync();
    *resync.mutable_transfer() = record_.reference();
    resync.set_generation(record_.generation());
    resync.set_reason(reason);
    audit(context, "resync", reason);
    if (record_.state() == TRANSFER_STATE_RELEASING) residue_full_ = true;  // what was read is not dirty any more
  }
  snapshot_done_ = final_begun_ = converged_ = false;
  for (Class& c : classes_) {
    c.held.clear();
    c.sum = 0;
    c.batch.clear();
  }
  begin(context, record_.state() == TRANSFER_STATE_RELEASING ? Activity::Residue : Activity::Snapshot);
}

void SourceTransfer::fail(SoaContext& context, common::v1::ClassFeedback why) {
  if (record_.state() == TRANSFER_STATE_RELEASING || record_.state() == TRANSFER_STATE_FAILED) {
    ClassFeedbacks news;
    *news.Add() = std::move(why);
    merge_feedback(*record_.mutable_feedback(), news);
    return save(context);
  }
  *record_.add_feedback() = std::move(why);
  enter(context, TRANSFER_STATE_FAILED);
  stream_.start(record_.generation());
  activity_ = Activity::Idle;
  say_failed(context);
}

void SourceTransfer::say_failed(SoaContext& context) const {
  auto& feedback = *send(context).mutable_feedback();
  *feedback.mutable_transfer() = record_.reference();
  feedback.set_stage(FEEDBACK_STAGE_FAILED);
  feedback.set_role(TRANSFER_ROLE_SOURCE);
  *feedback.mutable_classes() = record_.feedback();
}

// ---- the end

void SourceTransfer::finish(SoaContext& context) {
  Ending ending;
  if (end_ == End::RolledBack) {
    auto& rolled_back = *ending.answer.emplace().mutable_rolled_back();
    *rolled_back.mutable_transfer() = record_.reference();
    rolled_back.set_role(TRANSFER_ROLE_SOURCE);
  } else if (end_ == End::Released) {
    auto& released = *ending.answer.emplace().mutable_released();
    *released.mutable_transfer() = record_.reference();
    released.set_role(TRANSFER_ROLE_SOURCE);
    released.set_records(swept_);
    released.set_residue(residue_);
    released.set_kept(destination_lost_ ||
                      std::any_of(classes_.begin(), classes_.end(), [](const Class& c) { return c.kept; }));
    *released.mutable_feedback() = record_.feedback();
    for (const Class& c : classes_) {
      if (c.sweep_failed)
        *released.add_feedback() =
            failed_class(c.name, common::v1::FINDING_DRIVER_FAILURE, "what moved could not be deleted");
    }
  }
  audit(context, "release",
        fmt::format("transfer {} as source has ended: {} records deleted, residue {}", key_.index, swept_, residue_));
  ending_ = std::move(ending);
}

TransferView SourceTransfer::view() const {
  TransferView view;
  *view.status.mutable_transfer() = record_.reference();
  view.status.set_role(TRANSFER_ROLE_SOURCE);
  view.status.set_state(record_.state());
  view.status.set_generation(record_.generation());
  for (const Class& c : classes_) view.records += c.held.size();
  view.resyncs = resyncs_;
  view.round = stream_.round();
  view.barrier = record_.barrier();
  return view;
}

}  // namespace sami::protocol
