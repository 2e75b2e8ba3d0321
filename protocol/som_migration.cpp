#include "protocol/som_migration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <iterator>

#include "protocol/findings.h"
#include "protocol/validation.h"

namespace sami::protocol {

using journal::TransferProgress;

bool Peers::registered(const std::string& host) const {
  const auto found = agents.find(host);
  return found != agents.end() && found->second.registered;
}

bool Peers::authorized_tde(const std::string& tde) const {
  const auto found = tdes.find(tde);
  return found != tdes.end() && found->second.authorized;
}

bool is_prepared(const TransferProgress& t) { return t.prepared() || t.failed(); }
bool is_standing_by(const TransferProgress& t) { return t.standby() || t.ready() || t.failed(); }
bool is_ready_or_failed(const TransferProgress& t) { return t.ready() || t.failed(); }

MigrationRun::MigrationRun(journal::Migration record, Instant now)
    : record_(std::move(record)), lanes_(static_cast<std::size_t>(record_.transfers_size())), next_(now) {}

bool MigrationRun::settled() const {
  if (!final()) return false;
  const bool released = record_.state() != journal::ROLLED_BACK;
  return std::all_of(record_.transfers().begin(), record_.transfers().end(), [&](const TransferProgress& t) {
    return released ? t.source_released() && t.destination_released()
                    : t.source_rolled_back() && t.destination_rolled_back();
  });
}

bool MigrationRun::all(bool (*done)(const TransferProgress&), bool with_leftovers) const {
  return std::all_of(record_.transfers().begin(), record_.transfers().end(),
                     [&](const TransferProgress& t) { return done(t) || (t.plan().leftover() && !with_leftovers); });
}

TransferProgress* MigrationRun::transfer(std::uint32_t index) {
  return index < static_cast<std::uint32_t>(record_.transfers_size())
             ? record_.mutable_transfers(static_cast<int>(index))
             : nullptr;
}

// ---- the record

void MigrationRun::audit(SomContext& context, std::string event, std::string detail) const {
  context.step.audit.push_back({record_.id(), record_.subject().id(), std::move(event), std::move(detail)});
}

void MigrationRun::note(SomContext& context, const std::string& what) {
  constexpr int maximum = 64;
  if (record_.timeline_size() < maximum) {
    auto* entry = record_.add_timeline();
    entry->set_wall_microseconds(context.wall);
    entry->set_what(what);
  }
  dirty_ = true;
  context.step.changed.push_back(record_.id());
}

void MigrationRun::poke() {
  for (Lane& lane : lanes_) lane.source.due = lane.destination.due = Instant{INT64_MIN};
  tde_due_ = Instant{INT64_MIN};
}

void MigrationRun::enter(SomContext& context, journal::MigrationState state) {
  assert(may_follow(record_.state(), state));
  if (state == journal::IN_DOUBT) record_.set_doubtful_in(record_.state());
  record_.set_state(state);
  note(context, std::string(to_string(state)));
  audit(context, "state", std::string(to_string(state)));
  start_deadline(context);
  poke();
  if (state == journal::SWITCHING && record_.outcome() == common::v1::OUTCOME_UNSPECIFIED) {
    // What stands by has been told everything: the time of the pause is not spent on telling it again.
    for (const TransferProgress& t : record_.transfers()) {
      if (t.standby()) lane(t).destination.due = context.now + repeat_after(context);
    }
  }
  if (is_final(state)) say_concluded(context);
}

void MigrationRun::start_deadline(const SomContext& context) {
  const SomConfig& c = context.config;
  deadline_set_ = true;
  deadline_passed_ = false;
  state_deadline_ = halfway_ = Instant::never();
  const bool completing = record_.outcome() == common::v1::OUTCOME_AT_DESTINATION;
  switch (record_.state()) {
    case journal::PLANNED:
    case journal::PREPARING: state_deadline_ = context.now + c.prepare_deadline; break;
    case journal::PRECOPY: state_deadline_ = context.now + c.precopy_deadline; break;
    case journal::STANDBY: state_deadline_ = context.now + c.standby_deadline; break;
    case journal::SWITCHING:
      state_deadline_ = context.now + (completing ? c.completion_deadline : c.switch_deadline);
      break;
    case journal::READY:
      if (completing) state_deadline_ = context.now + c.completion_deadline;
      break;
    case journal::RELEASING:
      state_deadline_ = context.now + c.release_deadline;
      halfway_ = context.now + c.release_deadline / 2;
      break;
    case journal::ROLLING_BACK: state_deadline_ = context.now + c.rollback_deadline; break;
    default: break;
  }
  if (expecting_outcome()) {
    if (outcome_deadline_ == Instant::never()) outcome_deadline_ = context.now + c.outcome_deadline;
  } else {
    outcome_deadline_ = Instant::never();
  }
}

bool MigrationRun::expecting_outcome() const {
  return record_.vote() != common::v1::VOTE_UNSPECIFIED && record_.outcome() == common::v1::OUTCOME_UNSPECIFIED &&
         record_.state() != journal::IN_DOUBT && !final();
}

// ---- facts

void MigrationRun::announced(SomContext& context) {
  note(context, std::string(to_string(record_.state())));
  audit(context, "state",
        fmt::format("PLANNED: {} from {} to {}, epoch {}, {} transfers", record_.subject().id(), record_.source_place(),
                    record_.destination_place(), record_.epoch(), record_.transfers_size()));
  for (TransferProgress& t : *record_.mutable_transfers()) {
    if (!is_retained(t.plan())) continue;
    t.set_prepared(true), t.set_standby(true), t.set_ready(true);
    t.set_source_released(true), t.set_destination_released(true);
    t.set_source_rolled_back(true), t.set_destination_rolled_back(true);
    audit(context, "transfer",
          fmt::format("transfer {}: {} stays on the path, its state is retained", t.plan().index(),
                      t.plan().source_host()));
  }
}

void MigrationRun::paused(SomContext& context) {
  if (record_.paused()) return;
  record_.set_paused(true);
  note(context, "PAUSED");
  audit(context, "notification", "PAUSED: the subject does not run");
}

void MigrationRun::outcome(SomContext& context, common::v1::Outcome outcome, std::string_view word, bool by_operator) {
  const auto state = record_.state();
  const bool overrides = record_.outcome_by_operator() && !by_operator && !final() && state != journal::RELEASING &&
                         state != journal::ROLLING_BACK;
  if (record_.outcome() == outcome && !overrides) return;
  if (record_.outcome() != common::v1::OUTCOME_UNSPECIFIED && !overrides) {
    return audit(context, "outcome", fmt::format("{} contradicts the outcome that was taken earlier: ignored", word));
  }
  record_.set_outcome(outcome);
  record_.set_outcome_by_operator(by_operator);
  const bool here = outcome == common::v1::OUTCOME_AT_DESTINATION;
  if (here && !all(is_ready_or_failed, true)) record_.set_conflict_rule(common::v1::CONFLICT_RULE_MOVED);
  const std::string text = fmt::format("{}: the subject runs at the {}{}", word, here ? "destination" : "source",
                                       by_operator ? ", says an operator" : "");
  note(context, text);
  audit(context, "outcome", text);
  start_deadline(context);
  poke();
}

void MigrationRun::doubt_answered(SomContext& context, const std::string& reason) {
  audit(context, "outcome", "the TDE cannot say where the subject runs: " + reason.substr(0, 512));
}

std::string MigrationRun::abort(SomContext& context, const std::string& actor, const std::string& reason) {
  if (final()) return fmt::format("{} has ended: {}. There is nothing to abort", id(), to_string(record_.state()));
  if (record_.state() == journal::IN_DOUBT)
    return fmt::format("{} is IN_DOUBT: say where the subject runs with resolve", id());
  if (record_.outcome() != common::v1::OUTCOME_UNSPECIFIED)
    return fmt::format("the subject of {} has arrived already; move it back with a new migration", id());
  if (record_.vote() != common::v1::VOTE_UNSPECIFIED)
    return fmt::format("{} has voted {}; its hypervisor decides now: cancel the move there", id(),
                       record_.vote() == common::v1::VOTE_GO ? "GO" : "NO_GO");
  record_.set_abort_requested(true);
  record_.set_actor(actor);
  audit(context, "operator", fmt::format("abort by {}: {}", actor, reason));
  vote(context, common::v1::VOTE_NO_GO, fmt::format("aborted by {}{}{}", actor, reason.empty() ? "" : ": ", reason));
  return {};
}

std::string MigrationRun::force(SomContext& context, const std::string& actor) {
  if (final()) return fmt::format("{} has ended: {}. Begin a new migration", id(), to_string(record_.state()));
  if (record_.outcome() != common::v1::OUTCOME_UNSPECIFIED)
    return fmt::format("the outcome of {} is known, no vote is needed any more", id());
  if (record_.vote() != common::v1::VOTE_UNSPECIFIED)
    return fmt::format("{} has voted, and a vote is given once; begin a new migration with force", id());
  record_.set_force(true);
  record_.set_actor(actor);
  audit(context, "operator", fmt::format("force by {}: failures of essential classes will not stop it", actor));
  note(context, "force");
  return {};
}

std::string MigrationRun::resolve(SomContext& context, common::v1::Outcome outcome_, const std::string& actor) {
  if (outcome_ != common::v1::OUTCOME_AT_SOURCE && outcome_ != common::v1::OUTCOME_AT_DESTINATION)
    return "the outcome must be at-source or at-destination";
  if (record_.state() != journal::IN_DOUBT)
    return fmt::format("{} is {}: only a migration that is IN_DOUBT can be resolved. {}", id(),
                       to_string(record_.state()), final() ? "It has ended" : "Wait for the outcome, or abort it");
  record_.set_actor(actor);
  audit(context, "operator", fmt::format("resolved by {}", actor));
  outcome(context, outcome_, "resolve", true);
  return {};
}

// ---- vote

bool MigrationRun::essential(const std::string& state_class) const {
  return std::any_of(record_.classes().begin(), record_.classes().end(),
                     [&](const auto& c) { return c.state_class() == state_class && c.essential(); });
}

std::string MigrationRun::essential_failure() const {
  for (const TransferProgress& t : record_.transfers()) {
    if (t.plan().leftover()) continue;
    const std::string path =
        fmt::format("transfer {} ({} -> {})", t.plan().index(), t.plan().source_host(), t.plan().destination_host());
    for (const auto& feedback : t.feedback()) {
      const bool counts = essential(feedback.state_class()) || feedback.state_class().empty();
      if (feedback.result() == common::v1::CLASS_RESULT_FAILED && counts)
        return fmt::format("{}: {}", path, sentence(feedback));
    }
    if (t.failed()) return path + " failed";
  }
  return {};
}

void MigrationRun::vote(SomContext& context, common::v1::Vote given, const std::string& reason) {
  record_.set_vote(given);
  record_.set_vote_reason(reason.substr(0, 1024));
  const std::string text =
      fmt::format("vote {}{}{}", given == common::v1::VOTE_GO ? "GO" : "NO_GO", reason.empty() ? "" : ": ", reason);
  note(context, text);
  audit(context, "vote", text);
  outcome_deadline_ = context.now + context.config.outcome_deadline;
  poke();
}

void MigrationRun::consider_vote(SomContext& context) {
  if (record_.vote() != common::v1::VOTE_UNSPECIFIED || record_.outcome() != common::v1::OUTCOME_UNSPECIFIED) return;
  const auto state = record_.state();
  if (state == journal::IN_DOUBT || final()) return;
  const std::string failure = essential_failure();
  const bool complete = all(is_ready_or_failed, false);
  if (state == journal::SWITCHING && (complete || deadline_passed_)) {
    if (failure.empty() && complete) return vote(context, common::v1::VOTE_GO, "");
    const std::string reason =
        failure.empty() ? "the deadline of SWITCHING passed before every transfer was ready" : failure;
    if (record_.force())
      return vote(context, common::v1::VOTE_GO, fmt::format("forced by {}, although {}", record_.actor(), reason));
    return vote(context, common::v1::VOTE_NO_GO, reason);
  }
  if (!failure.empty() && !record_.force()) return vote(context, common::v1::VOTE_NO_GO, failure);
  if (!deadline_passed_ || (record_.force() && state != journal::STANDBY)) return;
  std::string reason = fmt::format("the deadline of {} passed", to_string(state));
  for (const TransferProgress& t : record_.transfers()) {
    for (const std::string& host : {t.plan().source_host(), t.plan().destination_host()}) {
      if (!context.peers.registered(host)) reason += fmt::format("; the agent of {} is not here", host);
    }
  }
  vote(context, common::v1::VOTE_NO_GO, reason);
}

// ---- transitions

void MigrationRun::drive(SomContext& context) {
  if (!deadline_set_) start_deadline(context);
  if (context.now >= state_deadline_) {
    state_deadline_ = Instant::never();
    deadline_passed_ = true;
  }
  do {
    consider_vote(context);
  } while (advance(context));
  if (context.now >= outcome_deadline_ && expecting_outcome() && record_.state() != journal::ROLLING_BACK) {
    audit(context, "outcome", "no outcome was notified in time");
    enter(context, journal::IN_DOUBT);
  }
  send_due(context);
  plan_wakeup(context);
}

// Takes at most one transition; false: none is due.
bool MigrationRun::advance(SomContext& context) {
  const auto state = record_.state();
  const bool here = record_.outcome() == common::v1::OUTCOME_AT_DESTINATION;
  if (record_.outcome() == common::v1::OUTCOME_AT_SOURCE && may_follow(state, journal::ROLLING_BACK)) {
    if (state == journal::PLANNED) {  // nobody was told anything
      for (TransferProgress& t : *record_.mutable_transfers())
        t.set_source_rolled_back(true), t.set_destination_rolled_back(true);
    }
    enter(context, journal::ROLLING_BACK);
    return true;
  }
  switch (state) {
    case journal::PLANNED:
      if (!here && record_.vote() != common::v1::VOTE_UNSPECIFIED) return false;
      if (!everything_here(context) && !(deadline_passed_ && (here || record_.force()))) return false;
      if (here) mark_unreachable(context);
      enter(context, here ? journal::SWITCHING : journal::PREPARING);
      return true;
    case journal::PREPARING:
    case journal::PRECOPY:
    case journal::STANDBY: return advance_preparing(context);
    case journal::SWITCHING: return advance_switching(context);
    case journal::READY: return advance_ready(context);
    case journal::RELEASING: return advance_releasing(context);
    case journal::ROLLING_BACK: return advance_rolling_back(context);
    case journal::IN_DOUBT:
      if (!here) return false;
      enter(context, all(is_ready_or_failed, true) ? journal::RELEASING : journal::SWITCHING);
      return true;
    default: return false;
  }
}

bool MigrationRun::everything_here(const SomContext& context) const {
  return std::all_of(record_.transfers().begin(), record_.transfers().end(), [&](const TransferProgress& t) {
    if (is_retained(t.plan()) || t.plan().leftover()) return true;
    return context.peers.registered(t.plan().source_host()) && context.peers.registered(t.plan().destination_host());
  });
}

void MigrationRun::mark_unreachable(SomContext& context) {
  for (TransferProgress& t : *record_.mutable_transfers()) {
    for (const std::string& host : {t.plan().source_host(), t.plan().destination_host()}) {
      if (context.peers.registered(host) || is_retained(t.plan())) continue;
      ClassFeedbacks news;
      for (const auto& c : record_.classes()) {
        *news.Add() = failed_class(c.state_class(), common::v1::FINDING_UNREACHABLE,
                                   "the agent of " + host + " is not connected");
      }
      merge_feedback(*t.mutable_feedback(), news);
      dirty_ = true;
    }
  }
}

bool MigrationRun::advance_preparing(SomContext& context) {
  if (record_.paused() || record_.outcome() == common::v1::OUTCOME_AT_DESTINATION) {
    enter(context, journal::SWITCHING);
    return true;
  }
  if (record_.vote() != common::v1::VOTE_UNSPECIFIED) return false;
  const bool go_on = record_.force() && deadline_passed_;
  if (record_.state() == journal::PREPARING && (go_on || all(is_prepared, false))) {
    enter(context, journal::PRECOPY);
    return true;
  }
  if (record_.state() == journal::PRECOPY && (go_on || all(is_standing_by, false))) {
    enter(context, journal::STANDBY);
    return true;
  }
  return false;
}

bool MigrationRun::advance_switching(SomContext& context) {
  if (record_.outcome() == common::v1::OUTCOME_AT_DESTINATION) {
    if (!all(is_ready_or_failed, true) && !deadline_passed_) return false;
    enter(context, journal::RELEASING);
    return true;
  }
  if (record_.vote() != common::v1::VOTE_GO) return false;
  enter(context, journal::READY);
  return true;
}

// A transfer may have lost its readiness (its host restarted), and leftovers may still be on their way.
bool MigrationRun::advance_ready(SomContext& context) {
  if (record_.outcome() != common::v1::OUTCOME_AT_DESTINATION) return false;
  if (!all(is_ready_or_failed, true) && !deadline_passed_) return false;
  enter(context, journal::RELEASING);
  return true;
}

bool MigrationRun::advance_releasing(SomContext& context) {
  const bool complete =
      std::all_of(record_.transfers().begin(), record_.transfers().end(),
                  [](const TransferProgress& t) { return t.source_released() && t.destination_released(); });
  if (!complete && !deadline_passed_) return false;
  collect_missing(context);
  enter(context, record_.missing_size() == 0 ? journal::DONE : journal::DONE_WITH_LOSS);
  return true;
}

void MigrationRun::collect_missing(SomContext& context) {
  for (const TransferProgress& t : record_.transfers()) {
    if (t.plan().leftover()) continue;
    const std::string path =
        fmt::format("transfer {} ({} -> {})", t.plan().index(), t.plan().source_host(), t.plan().destination_host());
    if (!t.ready()) *record_.add_missing() = path + (t.failed() ? ": failed" : ": was not ready in time");
    for (const auto& feedback : t.feedback()) {
      const bool counts = essential(feedback.state_class()) || feedback.state_class().empty();
      if (feedback.result() == common::v1::CLASS_RESULT_FAILED && counts)
        *record_.add_missing() = fmt::format("{}: {}", path, sentence(feedback));
    }
    if (!t.source_released())
      *record_.add_missing() = fmt::format("{}: {} did not answer Release", path, t.plan().source_host());
    else if (t.source_keeps())
      *record_.add_missing() = fmt::format("{}: {} keeps its records", path, t.plan().source_host());
    if (!t.destination_released())
      *record_.add_missing() = fmt::format("{}: {} did not answer Release", path, t.plan().destination_host());
  }
  for (const auto& what : record_.missing()) audit(context, "loss", what);
}

bool MigrationRun::advance_rolling_back(SomContext& context) {
  bool complete = true;
  for (const TransferProgress& t : record_.transfers()) {
    const std::pair<bool, const std::string&> sides[] = {{t.source_rolled_back(), t.plan().source_host()},
                                                         {t.destination_rolled_back(), t.plan().destination_host()}};
    for (const auto& [answered, host] : sides) {
      if (answered) continue;
      complete = false;
      if (deadline_passed_)
        audit(context, "rollback", host + " did not answer Rollback; it is told again when it registers");
    }
  }
  if (!complete && !deadline_passed_) return false;
  enter(context, journal::ROLLED_BACK);
  return true;
}

// ---- notifications

void MigrationRun::add_alias(const std::string& tde, const std::string& notification_id, std::uint32_t sequence) {
  constexpr int maximum = 16;
  if (record_.aliases_size() >= maximum) return;
  auto* alias = record_.add_aliases();
  alias->set_tde(tde);
  alias->set_notification_id(notification_id);
  alias->set_last_sequence(sequence);
  dirty_ = true;
}

void MigrationRun::note_sequence(const std::string& tde, const std::string& notification_id, std::uint32_t sequence) {
  dirty_ = true;
  if (record_.tde() == tde && record_.notification_id() == notification_id) return record_.set_last_sequence(sequence);
  for (auto& alias : *record_.mutable_aliases()) {
    if (alias.tde() == tde && alias.notification_id() == notification_id) alias.set_last_sequence(sequence);
  }
}

std::uint32_t MigrationRun::last_sequence(const std::string& tde, const std::string& notification_id) const {
  if (record_.tde() == tde && record_.notification_id() == notification_id) return record_.last_sequence();
  for (const auto& alias : record_.aliases()) {
    if (alias.tde() == tde && alias.notification_id() == notification_id) return alias.last_sequence();
  }
  return 0;
}

}  // namespace sami::protocol
