#include "protocol/soa_destination.h"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/findings.h"

namespace sami::protocol {

using namespace if_m_a::v1;  // the states' names

namespace {
constexpr std::uint32_t maximum_failures = 5;  // in a row
constexpr std::size_t keys_per_batch = 1000;
}  // namespace

// ---- beginning

DestinationTransfer::DestinationTransfer(SoaContext& context, journal::AgentTransfer record,
                                         const KeysByClass& inherited)
    : TransferBase(std::move(record), context.now) {
  make_classes(context);
  renew_lease(context.config, context.now);
  save(context);
  for (Class& c : classes_) {
    const auto keys = inherited.find(c.book.name);
    if (keys == inherited.end()) continue;
    c.book.ours = keys->second;
    const std::vector<state::Key> ours(c.book.ours.begin(), c.book.ours.end());
    write_keys(context, c.book.name, ours, {}, {}, ours);
  }
  if (essential_given_up())
    fail(context);
  else
    begin(context, Phase::Prepare);
}

DestinationTransfer::DestinationTransfer(SoaContext& context, journal::AgentTransfer record,
                                         const std::vector<journal::KeyBatch>& batches)
    : TransferBase(std::move(record), context.now), generation_(record_.generation()) {
  make_classes(context);
  renew_lease(context.config, context.now);
  next_batch_ = static_cast<std::uint32_t>(batches.size());
  for (const auto& batch : batches) {
    Class* c = find(batch.state_class());
    if (c == nullptr) continue;
    c->book.ours.insert(batch.intended().begin(), batch.intended().end());
    c->book.uncertain.insert(batch.intended().begin(), batch.intended().end());
    for (const auto& key : batch.present()) {
      c->book.ours.erase(key);
      c->book.uncertain.erase(key);
      c->book.present.insert(key);
    }
    for (const auto& key : batch.removed()) c->book.ours.erase(key), c->book.uncertain.erase(key);
    for (const auto& key : batch.installed()) c->book.uncertain.erase(key), c->book.confirmed.insert(key);
  }
  resume(context);
}

void DestinationTransfer::resume(SoaContext& context) {
  switch (record_.state()) {
    case TRANSFER_STATE_PREPARING: return begin(context, Phase::Prepare);
    case TRANSFER_STATE_RECEIVING: return ask_generation(context, record_.generation());
    case TRANSFER_STATE_STANDBY:
      enter(context, TRANSFER_STATE_RECEIVING);
      return ask_generation(context, record_.generation());
    case TRANSFER_STATE_READY: activated_ = true; return begin(context, Phase::Verify);
    case TRANSFER_STATE_COMMITTING: end_ = End::Released; return begin(context, Phase::Activate);
    case TRANSFER_STATE_ROLLING_BACK: end_ = End::Expired; return begin(context, Phase::Remove);
    default: return;
  }
}

void DestinationTransfer::make_classes(const SoaContext& context) {
  patience_ = 3 * context.config.repeat_interval;
  for (const auto& requirement : record_.classes()) {
    if (find(requirement.state_class()) != nullptr) continue;
    Class c;
    c.book.name = requirement.state_class();
    c.book.essential = requirement.essential();
    const auto* profile = find_profile(context.config, c.book.name);
    c.staged = profile != nullptr && profile->staged;
    if (profile == nullptr)
      c.book.given_up = make_finding(common::v1::FINDING_UNSUPPORTED, context.config.host + " has no such state class");
    classes_.push_back(std::move(c));
  }
}

DestinationTransfer::Class* DestinationTransfer::find(const std::string& state_class) {
  const auto found =
      std::find_if(classes_.begin(), classes_.end(), [&](const Class& c) { return c.book.name == state_class; });
  return found == classes_.end() ? nullptr : &*found;
}

bool DestinationTransfer::leased() const {
  switch (record_.state()) {
    case TRANSFER_STATE_PREPARING:
    case TRANSFER_STATE_RECEIVING:
    case TRANSFER_STATE_STANDBY:
    case TRANSFER_STATE_FAILED: return end_ == End::No;
    default: return false;
  }
}

KeysByClass DestinationTransfer::ours() const {
  KeysByClass keys;
  for (const Class& c : classes_) keys[c.book.name] = c.book.ours;
  return keys;
}

// ---- the journal

void DestinationTransfer::write_keys(SoaContext& context, const std::string& state_class,
                                     const std::vector<state::Key>& intended, const std::vector<state::Key>& present,
                                     const std::vector<state::Key>& removed, const std::vector<state::Key>& installed) {
  journal::KeyBatch batch;
  const auto flush = [&] {
    batch.set_state_class(state_class);
    context.step.journal.push_back(
        {fmt::format("{}{:08}", keys_prefix(key_), next_batch_++), batch.SerializeAsString()});
    batch.Clear();
  };
  std::size_t count = 0;
  const auto add = [&](const std::vector<state::Key>& keys, auto* into) {
    for (const auto& key : keys) {
      *into->Add() = key;
      if (++count % keys_per_batch == 0) flush();
    }
  };
  add(intended, batch.mutable_intended());
  add(present, batch.mutable_present());
  add(removed, batch.mutable_removed());
  add(installed, batch.mutable_installed());
  if (count % keys_per_batch != 0) flush();
}

void DestinationTransfer::erase_keys(SoaContext& context) const {
  for (std::uint32_t n = 0; n < next_batch_; ++n)
    context.step.journal.push_back({fmt::format("{}{:08}", keys_prefix(key_), n), std::nullopt});
}

// ---- the master

void DestinationTransfer::on_get_ready(SoaContext& context, const GetReady& request) {
  if (end_ != End::No) return;
  const bool news = request.outcome() != record_.outcome() || request.conflict_rule() != record_.conflict_rule();
  if (news && (request.outcome() != 0 || request.conflict_rule() == common::v1::CONFLICT_RULE_MOVED)) {
    if (request.outcome() != 0) record_.set_outcome(request.outcome());
    if (request.conflict_rule() != 0) record_.set_conflict_rule(request.conflict_rule());
    rebuild_scope();
    save(context);
  }
  switch (record_.state()) {
    case TRANSFER_STATE_RECEIVING: return say_ready_to_receive(context);
    case TRANSFER_STATE_STANDBY: say_ready_to_receive(context); return say_feedback(context, FEEDBACK_STAGE_STANDBY);
    case TRANSFER_STATE_READY:
      if (phase_ != Phase::Verify) say_feedback(context, FEEDBACK_STAGE_READY);
      return;
    case TRANSFER_STATE_FAILED: return say_feedback(context, FEEDBACK_STAGE_FAILED);
    default: return;
  }
}

// The subject may be let go to this host before the master is back. What earlier rounds brought is all there is then,
// so it is made to do; if the master comes back in time its state is asked for from the start.
void DestinationTransfer::on_master_lost(SoaContext& context) {
  const auto state = record_.state();
  if ((state != TRANSFER_STATE_RECEIVING && state != TRANSFER_STATE_STANDBY) || end_ != End::No || live()) return;
  auto makeshift = std::make_shared<state::Scope>(*scope_);
  makeshift->conflict_rule = common::v1::CONFLICT_RULE_MOVED;
  for (const Class& c : classes_) {
    if (c.book.given_up || c.staged || c.book.ours.empty()) continue;
    context.step.calls.push_back(
        {context.calls.next++, c.book.name, makeshift, driver_call::Activate{c.book.all_keys()}});
  }
  if (state == TRANSFER_STATE_STANDBY) enter(context, TRANSFER_STATE_RECEIVING);
  chunk_stale_ = phase_ != Phase::Idle;
  ask_generation(context, generation_);
}

void DestinationTransfer::on_release(SoaContext& context, const Release&) {
  if (end_ != End::No) return;
  end_ = End::Released;
  if (!live() && !holds()) {  // it was not told the outcome otherwise
    record_.set_outcome(common::v1::OUTCOME_AT_DESTINATION);
    rebuild_scope();
    save(context);
  }
  if (!outstanding()) phase_ = Phase::Idle;
  choose(context);
}

void DestinationTransfer::on_rollback(SoaContext& context) {
  if (end_ == End::Released) return;  // the outcome was the other one
  const bool expired = end_ == End::Expired;
  end_ = End::RolledBack;  // an expired one that is under way answers, too
  if (expired || phase_ == Phase::Remove) return;
  if (!outstanding()) phase_ = Phase::Idle;
  choose(context);
}

void DestinationTransfer::say_ready_to_receive(SoaContext& context) const {
  auto& ready = *send(context).mutable_ready();
  *ready.mutable_transfer() = record_.reference();
  ready.set_window(context.config.window);
  ready.set_after_generation(record_.after_generation());
  for (const Class& c : classes_) *ready.add_feedback() = c.book.feedback(record_.plan().leftover());
}

void DestinationTransfer::say_feedback(SoaContext& context, FeedbackStage stage) const {
  auto& feedback = *send(context).mutable_feedback();
  *feedback.mutable_transfer() = record_.reference();
  feedback.set_stage(stage);
  feedback.set_role(TRANSFER_ROLE_DESTINATION);
  feedback.set_generation(record_.generation());
  if (stage == FEEDBACK_STAGE_STANDBY) {
    for (const Class& c : classes_) *feedback.add_classes() = c.book.feedback(record_.plan().leftover());
  } else {
    *feedback.mutable_classes() = record_.feedback();
  }
}

void DestinationTransfer::fill_feedback() {
  record_.clear_feedback();
  for (const Class& c : classes_) *record_.add_feedback() = c.book.feedback(record_.plan().leftover());
}

void DestinationTransfer::ask_generation(SoaContext& context, std::uint64_t above) {
  record_.set_after_generation(std::max(record_.after_generation(), above));
  save(context);
  waiting_chunks_.clear();
  gap_since_.reset();
  say_ready_to_receive(context);
}

void DestinationTransfer::give_up(Class& c, common::v1::FindingCode code, const std::string& detail) const {
  if (!c.book.given_up) c.book.given_up = make_finding(code, detail);
}

bool DestinationTransfer::essential_given_up() const {
  return !record_.plan().leftover() && std::any_of(classes_.begin(), classes_.end(),
                                                   [](const Class& c) { return c.book.essential && c.book.given_up; });
}

// It cannot be carried on; what is installed stays until the outcome.
void DestinationTransfer::fail(SoaContext& context) {
  fill_feedback();
  phase_ = Phase::Idle;
  waiting_chunks_.clear();
  enter(context, TRANSFER_STATE_FAILED);
  say_feedback(context, FEEDBACK_STAGE_FAILED);
}

// ---- phases

bool DestinationTransfer::outstanding() const {
  return std::any_of(classes_.begin(), classes_.end(), [](const Class& c) { return c.call_id != 0; });
}

bool DestinationTransfer::takes_part(Phase phase, const Class& c) const {
  const bool well = !c.book.given_up;
  switch (phase) {
    case Phase::Prepare: return well;
    case Phase::Verify: return well && !c.book.ours.empty() && !live();
    case Phase::Install: return well && c.book.name == chunk_.state_class();
    case Phase::Stale: return well && !c.stale.empty();
    case Phase::Activate:
      if (live() || end_ == End::Released) return well || !c.book.ours.empty();
      return well && c.staged;
    case Phase::Settle: return well || !c.book.ours.empty();
    case Phase::Remove: return !c.book.ours.empty();
    case Phase::Idle: break;
  }
  return false;
}

CallVariant DestinationTransfer::call_for(Phase phase, const Class& c) const {
  switch (phase) {
    case Phase::Verify: return driver_call::Read{{c.book.ours.begin(), c.book.ours.end()}};
    case Phase::Install: return driver_call::Install{items_};
    case Phase::Stale: return driver_call::Remove{c.stale};
    case Phase::Activate: return driver_call::Activate{c.book.all_keys()};
    case Phase::Settle: return driver_call::Settle{c.book.all_keys()};
    case Phase::Remove: return driver_call::Remove{{c.book.ours.begin(), c.book.ours.end()}};
    case Phase::Prepare:
    case Phase::Idle: break;
  }
  return driver_call::Prepare{};
}

void DestinationTransfer::begin(SoaContext& context, Phase phase) {
  phase_ = phase;
  for (Class& c : classes_) {
    if (phase == Phase::Stale) c.stale = c.book.stale();
    c.waiting = takes_part(phase, c);
    c.failures = 0;
    c.retry_at = Instant{INT64_MIN};
  }
  pump(context);
}

void DestinationTransfer::pump(SoaContext& context) {
  if (phase_ == Phase::Idle) return;
  bool through = true;
  for (Class& c : classes_) {
    if (!c.waiting) continue;
    through = false;
    if (c.call_id == 0 && c.retry_at <= context.now) c.call_id = call(context, c.book.name, call_for(phase_, c));
  }
  if (through) phase_done(context);
}

void DestinationTransfer::on_reply(SoaContext& context, const std::string& state_class, DriverReply reply) {
  Class* c = find(state_class);
  if (c == nullptr || c->call_id != reply.id || ending_) return;
  c->call_id = 0;
  if (const auto* error = std::get_if<Error>(&reply.result)) {
    on_error(context, *c, *error);
  } else {
    c->failures = 0;
    c->waiting = false;
    apply(context, *c, reply);
  }
  const bool turned =
      end_ != End::No && phase_ != Phase::Remove && phase_ != Phase::Settle && phase_ != Phase::Activate;
  if (turned && !outstanding()) {
    phase_ = Phase::Idle;
    return choose(context);
  }
  if (!turned) pump(context);
}

void DestinationTransfer::on_error(SoaContext& context, Class& c, const Error& error) {
  const bool removing = phase_ == Phase::Remove;
  if (phase_ == Phase::Install) {  // any subset may be in place
    for (auto& item : items_) {
      const state::Key& key = item.record.key;
      if (c.book.ours.contains(key) && !c.book.confirmed.contains(key)) c.book.uncertain.insert(key);
      item.ours = counts_as_ours(c, key);
    }
  }
  c.retry_at = context.now + (removing ? context.config.repeat_interval : context.config.round_interval);
  if (++c.failures < maximum_failures || removing) return;  // a rollback is never given up
  audit(context, "driver", fmt::format("{}: {}", c.book.name, error.message));
  c.waiting = false;
  if (phase_ == Phase::Verify) {
    missing_ = true;
    return;
  }
  if (holds() && phase_ == Phase::Install) {
    c.book.residue_failed += items_.size();
    return;
  }
  give_up(c, common::v1::FINDING_DRIVER_FAILURE, error.message);
  if (essential_given_up() && may_follow(key_.role, record_.state(), TRANSFER_STATE_FAILED)) fail(context);
}

void DestinationTransfer::apply(SoaContext& context, Class& c, DriverReply& reply) {
  switch (phase_) {
    case Phase::Prepare: {
      const auto* preparation = std::get_if<state::Preparation>(&reply.result);
      if (preparation == nullptr)
        return give_up(c, common::v1::FINDING_DRIVER_FAILURE, "the driver gave no answer to prepare");
      if (!preparation->accepted) {
        const bool said = !preparation->findings.empty();
        give_up(c, said ? preparation->findings[0].code() : common::v1::FINDING_UNSUPPORTED,
                said ? preparation->findings[0].detail() : "the driver refused");
      }
      c.book.reservations = preparation->findings;
      if (!preparation->accepted && !c.book.reservations.empty())
        c.book.reservations.erase(c.book.reservations.begin());
      std::vector<state::Key> present;
      for (const auto& key : preparation->present) {
        if (!c.book.ours.contains(key) && c.book.present.insert(key).second) present.push_back(key);
      }
      return write_keys(context, c.book.name, {}, present, {});
    }
    case Phase::Verify: {
      const auto* records = std::get_if<std::vector<state::Record>>(&reply.result);
      missing_ = missing_ || records == nullptr || records->size() != c.book.ours.size() ||
                 std::any_of(records->begin(), records->end(), [](const state::Record& r) { return r.gone; });
      return;
    }
    case Phase::Install:
      if (const auto* installed = std::get_if<Installed>(&reply.result)) {
        take_installed(context, c, installed->results);
        take_read_back(c, installed->found);
      }
      return;
    case Phase::Stale: {
      for (const auto& key : c.stale) c.book.ours.erase(key), c.book.confirmed.erase(key);
      return write_keys(context, c.book.name, {}, {}, c.stale);
    }
    case Phase::Remove:
      if (const auto* count = std::get_if<std::uint64_t>(&reply.result)) removed_ += *count;
      return;
    default: return;
  }
}

void DestinationTransfer::phase_done(SoaContext& context) {
  const Phase done = std::exchange(phase_, Phase::Idle);
  switch (done) {
    case Phase::Prepare: prepared(context); break;
    case Phase::Verify: verified(context); break;
    case Phase::Install:
      if (again_.empty()) return chunk_in_place(context);
      items_ = std::exchange(again_, {});
      read_back_.clear();
      return begin(context, Phase::Install);
    case Phase::Stale: return round_in_place(context);
    case Phase::Activate:
      activated_ = true;
      if (end_ == End::Released) return begin(context, Phase::Settle);
      return chunk_done(context);
    case Phase::Settle:
    case Phase::Remove: return finish(context);
    case Phase::Idle: break;
  }
  choose(context);
}

void DestinationTransfer::prepared(SoaContext& context) {
  if (record_.state() != TRANSFER_STATE_PREPARING) return;
  if (essential_given_up()) return fail(context);
  enter(context, TRANSFER_STATE_RECEIVING);
  say_ready_to_receive(context);
}

void DestinationTransfer::verified(SoaContext& context) {
  if (!missing_) return say_feedback(context, FEEDBACK_STAGE_READY);
  missing_ = activated_ = false;
  enter(context, TRANSFER_STATE_RECEIVING);
  ask_generation(context, record_.generation());
}

// Begins what is to be done next, if nothing is going on.
void DestinationTransfer::choose(SoaContext& context) {
  if (phase_ != Phase::Idle || ending_) return;
  if (end_ == End::Released) return commit(context);
  if (end_ != End::No) {
    if (record_.state() != TRANSFER_STATE_ROLLING_BACK) enter(context, TRANSFER_STATE_ROLLING_BACK);
    return begin(context, Phase::Remove);
  }
  next_chunk(context);
}

void DestinationTransfer::commit(SoaContext& context) {
  if (record_.state() != TRANSFER_STATE_READY && record_.state() != TRANSFER_STATE_COMMITTING) {
    if (record_.state() != TRANSFER_STATE_FAILED) {
      for (Class& c : classes_) {
        if (!c.book.total)
          c.book.total = make_finding(common::v1::FINDING_TIMEOUT, "released before the final round was in place");
      }
      fill_feedback();
      enter(context, TRANSFER_STATE_FAILED);
    }
  }
  if (record_.state() != TRANSFER_STATE_COMMITTING) enter(context, TRANSFER_STATE_COMMITTING);
  begin(context, activated_ ? Phase::Settle : Phase::Activate);
}

void DestinationTransfer::finish(SoaContext& context) {
  Ending ending;
  if (end_ == End::RolledBack) {
    auto& rolled_back = *ending.answer.emplace().mutable_rolled_back();
    *rolled_back.mutable_transfer() = record_.reference();
    rolled_back.set_role(TRANSFER_ROLE_DESTINATION);
    rolled_back.set_records(removed_);
  } else if (end_ == End::Released) {
    auto& released = *ending.answer.emplace().mutable_released();
    *released.mutable_transfer() = record_.reference();
    released.set_role(TRANSFER_ROLE_DESTINATION);
    released.set_residue(residue_);
    *released.mutable_feedback() = record_.feedback();
    for (const Class& c : classes_) {
      released.set_records(released.records() + c.book.all_keys().size());
      if (c.book.residue_failed == 0) continue;
      ClassFeedbacks news;
      *news.Add() = c.book.feedback(record_.plan().leftover());
      merge_feedback(*released.mutable_feedback(), news);
    }
  }
  audit(context, "release",
        fmt::format("transfer {} as destination has ended: {}", key_.index,
                    end_ == End::Released ? "the records stay" : fmt::format("{} records deleted", removed_)));
  ending_ = std::move(ending);
}

// ---- time

void DestinationTransfer::tick(SoaContext& context) {
  if (ending_) return;
  if (leased() && context.now >= lease_until_) {
    audit(context, "lease", "the lease expired: the destination rolls back");
    end_ = End::Expired;
    if (!outstanding()) phase_ = Phase::Idle;
  }
  pump(context);
  choose(context);
  if (!ending_ && gap_since_ && context.now >= *gap_since_ + patience_ && phase_ == Phase::Idle)
    ask_generation(context, generation_);
}

Instant DestinationTransfer::next_deadline() const {
  if (ending_) return Instant::never();
  Instant next = leased() ? lease_until_ : Instant::never();
  for (const Class& c : classes_) {
    if (phase_ != Phase::Idle && c.waiting && c.call_id == 0) next = std::min(next, c.retry_at);
  }
  if (gap_since_ && phase_ == Phase::Idle) next = std::min(next, *gap_since_ + patience_);
  return next;
}

TransferView DestinationTransfer::view() const {
  TransferView view;
  *view.status.mutable_transfer() = record_.reference();
  view.status.set_role(TRANSFER_ROLE_DESTINATION);
  view.status.set_state(record_.state());
  view.status.set_generation(record_.generation());
  for (const Class& c : classes_) {
    view.records += c.book.held.size();
    view.installed += c.book.ours.size();
  }
  view.adopted = adopted_;
  view.resyncs = generations_ > 0 ? generations_ - 1 : 0;
  view.round = installed_round_;
  return view;
}

}  // namespace sami::protocol
