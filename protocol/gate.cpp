#include "protocol/gate.h"

#include <algorithm>
#include <array>

#include "protocol/validation.h"

namespace sami::protocol {

namespace {

using Kind = HypervisorInstruction::Kind;
using if_m_t::v1::Notify;
namespace phase = if_m_t::v1;

constexpr std::string_view key_prefix = "gate/";
constexpr int slow = 4;  // how much rarer an acknowledged outcome is repeated, until Concluded

struct Row {
  GateState from;
  std::array<GateState, 5> to;
};
constexpr GateState none{};
constexpr std::array<Row, 5> table{{
    {GateState::Announced,
     {GateState::StandingBy, GateState::Paused, GateState::Cancelling, GateState::Concluding, none}},
    {GateState::StandingBy, {GateState::Paused, GateState::Cancelling, GateState::Concluding, none, none}},
    {GateState::Paused, {GateState::Continuing, GateState::Cancelling, GateState::Concluding, none, none}},
    {GateState::Continuing, {GateState::Concluding, none, none, none, none}},
    {GateState::Cancelling, {GateState::Concluding, none, none, none, none}},
}};

if_m_t::v1::Phase outcome_phase(const journal::GateRecord& record) {
  return record.outcome() == common::v1::OUTCOME_AT_SOURCE ? phase::PHASE_CANCELLED : phase::PHASE_RESUMED;
}

}  // namespace

std::string_view to_string(GateState state) {
  switch (state) {
    case GateState::Announced: return "Announced";
    case GateState::StandingBy: return "StandingBy";
    case GateState::Paused: return "Paused";
    case GateState::Continuing: return "Continuing";
    case GateState::Cancelling: return "Cancelling";
    case GateState::Concluding: return "Concluding";
  }
  return "unknown";
}

bool may_follow(GateState from, GateState to) {
  return to != none && std::any_of(table.begin(), table.end(), [&](const Row& row) {
           return row.from == from && std::find(row.to.begin(), row.to.end(), to) != row.to.end();
         });
}

class Gate::Implementation {
 public:
  Implementation(GateConfig config, const JournalImage& journal);

  GateStep step(Instant now, GateEvent event);
  Instant next_deadline() const;
  bool authorized() const { return authorized_; }
  std::vector<MoveView> moves() const;

 private:
  struct Move {
    journal::GateRecord record;
    bool outcome_acknowledged = false;
    bool asking = false;       // FindOut is to be answered
    bool master_asks = false;  // and the master wants to know
    bool dirty = false;
    Instant notify_due{INT64_MIN};
    Instant instruct_due{INT64_MIN};
    std::optional<Instant> deadline;  // of Announced and Paused
    GateState state() const { return static_cast<GateState>(record.state()); }
  };

  void on(const gate_event::Connected&);
  void on(const gate_event::Disconnected&);
  void on(const gate_event::FromMaster& event);
  void on(const gate_event::MoveBegan& event);
  void on(const gate_event::VmPaused& event);
  void on(const gate_event::VmResumedAtDestination& e) {
    place_known(e.notification_id, common::v1::OUTCOME_AT_DESTINATION);
  }
  void on(const gate_event::VmResumedAtSource& e) { place_known(e.notification_id, common::v1::OUTCOME_AT_SOURCE); }
  void on(const gate_event::PlaceUnknown& event);
  void on(const gate_event::Tick&) {}
  void on(const gate_event::JournalUnavailable&);

  void acknowledged(const if_m_t::v1::NotifyAcknowledged& answer);
  void verdict(Move& move, const if_m_t::v1::Verdict& verdict);
  void place_known(const std::string& id, common::v1::Outcome outcome);
  void enter(Move& move, GateState state, const std::string& why);
  void decide(Move& move);
  void notify(Move& move, if_m_t::v1::Phase p);
  void instruct(const Move& move, Kind kind, std::string detail = {});
  void refuse(const std::string& id, const std::string& reason);
  void forget(const std::string& id);
  void start_deadline(Move& move) const;
  void on_deadline(Move& move);
  void speak(Move& move);
  bool wants_instruction(const Move& move) const;
  bool waits_for_earlier(const Move& move) const;
  const Move* open_move_from(const Notify& noticed) const;
  Move* find(const std::string& id);
  void audit(const Move& move, std::string event, std::string detail);

  GateConfig config_;
  std::map<std::string, Move> moves_;
  std::uint64_t next_order_ = 1;
  std::vector<std::string> gone_;
  bool connected_ = false;
  bool authorized_ = false;
  bool refused_ = false;  // by the master: not again on this connection
  Instant authorize_due_{INT64_MIN};
  Instant now_;
  GateStep* step_ = nullptr;
};

Gate::Gate(GateConfig config, const JournalImage& journal)
    : implementation_(std::make_unique<Implementation>(std::move(config), journal)) {}
Gate::~Gate() = default;
Gate::Gate(Gate&&) noexcept = default;
Gate& Gate::operator=(Gate&&) noexcept = default;
GateStep Gate::step(Instant now, GateEvent event) { return implementation_->step(now, std::move(event)); }
Instant Gate::next_deadline() const { return implementation_->next_deadline(); }
bool Gate::authorized() const { return implementation_->authorized(); }
std::vector<MoveView> Gate::moves() const { return implementation_->moves(); }

Gate::Implementation::Implementation(GateConfig config, const JournalImage& journal) : config_(std::move(config)) {
  for (const auto& [key, value] : journal) {
    journal::GateRecord record;
    if (!key.starts_with(key_prefix) || !record.ParseFromString(value)) continue;
    Move& move = moves_[record.notification_id()];
    move.record = std::move(record);
    move.asking = move.record.outcome() == common::v1::OUTCOME_UNSPECIFIED;
    next_order_ = std::max(next_order_, move.record.order() + 1);
  }
}

GateStep Gate::Implementation::step(Instant now, GateEvent event) {
  GateStep step;
  step_ = &step;
  now_ = now;
  std::visit([this](const auto& e) { on(e); }, event);
  if (!std::holds_alternative<gate_event::JournalUnavailable>(event)) {
    if (connected_ && !authorized_ && !refused_ && authorize_due_ <= now_) {
      auto& authorize = *step.messages.emplace_back().mutable_authorize();
      authorize.set_identity(config_.identity);
      for (const auto version : config_.protocol_versions) authorize.add_protocol_versions(version);
      for (const auto& subject : config_.subjects) authorize.add_subjects(subject);
      authorize.set_software_version(config_.software_version);
      authorize_due_ = now_ + config_.repeat_interval;
    }
    for (auto& [id, move] : moves_) {
      if (!move.deadline.has_value()) start_deadline(move);
      if (now_ >= *move.deadline) on_deadline(move);
      speak(move);
      if (std::exchange(move.dirty, false))
        step.journal.push_back({std::string(key_prefix) + id, move.record.SerializeAsString()});
    }
    for (const auto& id : std::exchange(gone_, {}))
      step.journal.push_back({std::string(key_prefix) + id, std::nullopt});
  }
  step_ = nullptr;
  return step;
}

Instant Gate::Implementation::next_deadline() const {
  Instant next = connected_ && !authorized_ && !refused_ ? authorize_due_ : Instant::never();
  for (const auto& [id, move] : moves_) {
    next = std::min(next, move.deadline.value_or(Instant{INT64_MIN}));
    if (authorized_ && move.record.unacknowledged_size() > 0 && !waits_for_earlier(move))
      next = std::min(next, move.notify_due);
    if (wants_instruction(move)) next = std::min(next, move.instruct_due);
  }
  return next;
}

std::vector<MoveView> Gate::Implementation::moves() const {
  std::vector<MoveView> views;
  for (const auto& [id, move] : moves_) views.push_back({move.record, move.state()});
  return views;
}

// ---- helpers

Gate::Implementation::Move* Gate::Implementation::find(const std::string& id) {
  const auto found = moves_.find(id);
  return found == moves_.end() ? nullptr : &found->second;
}

void Gate::Implementation::audit(const Move& move, std::string event, std::string detail) {
  step_->audit.push_back({move.record.migration_id(), move.record.subject().id(), std::move(event), std::move(detail)});
}

void Gate::Implementation::instruct(const Move& move, Kind kind, std::string detail) {
  step_->instructions.push_back({kind, move.record.notification_id(), std::move(detail)});
}

void Gate::Implementation::start_deadline(Move& move) const {
  move.deadline = Instant::never();
  if (move.state() == GateState::Announced) move.deadline = now_ + config_.standby_deadline;
  if (move.state() == GateState::Paused) move.deadline = now_ + config_.verdict_deadline;
}

void Gate::Implementation::enter(Move& move, GateState state, const std::string& why) {
  if (!may_follow(move.state(), state)) return;
  move.record.set_state(static_cast<std::uint32_t>(state));
  move.dirty = true;
  move.instruct_due = Instant{INT64_MIN};
  start_deadline(move);
  audit(move, "gate", std::string(to_string(state)) + (why.empty() ? "" : ": " + why));
}

void Gate::Implementation::notify(Move& move, if_m_t::v1::Phase p) {
  auto& notification = *move.record.add_unacknowledged();
  if (begins_move(p)) notification = move.record.announcement();
  notification.set_notification_id(move.record.notification_id());
  move.record.set_next_sequence(move.record.next_sequence() + 1);
  notification.set_sequence(move.record.next_sequence());
  notification.set_phase(p);
  notification.set_cause(move.record.announcement().cause());
  move.dirty = true;
  if (move.record.unacknowledged_size() == 1) move.notify_due = Instant{INT64_MIN};
}

void Gate::Implementation::forget(const std::string& id) {
  moves_.erase(id);
  gone_.push_back(id);
}

void Gate::Implementation::refuse(const std::string& id, const std::string& reason) {
  Move* move = find(id);
  if (move == nullptr) return;
  audit(*move, "refused", reason);
  instruct(*move, Kind::Refused, reason);
  forget(id);
}

// What is due of a move: one notification at a time, in order; instructions until the hypervisor reports.
void Gate::Implementation::speak(Move& move) {
  if (authorized_ && move.record.unacknowledged_size() > 0 && move.notify_due <= now_ && !waits_for_earlier(move)) {
    *step_->messages.emplace_back().mutable_notify() = move.record.unacknowledged(0);
    move.notify_due = now_ + (move.outcome_acknowledged ? slow : 1) * config_.repeat_interval;
  }
  if (!wants_instruction(move) || move.instruct_due > now_) return;
  move.instruct_due = now_ + config_.repeat_interval;
  if (move.asking) instruct(move, Kind::FindOut);
  switch (move.state()) {
    case GateState::StandingBy: return instruct(move, Kind::MayPause);
    case GateState::Continuing: return instruct(move, Kind::Continue);
    case GateState::Cancelling: return instruct(move, Kind::Cancel, move.record.vote_reason());
    default: return;
  }
}

// Moves of one subject are notified in the order in which they happened: an older one that the SOM took after a newer
// one would take the state away from where the subject runs. While the SOM knows of the earlier move and nobody knows
// its outcome the later one may be about the same move: the SOM decides.
bool Gate::Implementation::waits_for_earlier(const Move& move) const {
  return std::any_of(moves_.begin(), moves_.end(), [&](const auto& entry) {
    const journal::GateRecord& other = entry.second.record;
    const bool undecided = !other.migration_id().empty() && other.outcome() == common::v1::OUTCOME_UNSPECIFIED;
    return other.order() < move.record.order() && !undecided && other.subject().id() == move.record.subject().id();
  });
}

bool Gate::Implementation::wants_instruction(const Move& move) const {
  return move.asking || move.state() == GateState::StandingBy || move.state() == GateState::Continuing ||
         move.state() == GateState::Cancelling;
}

// ---- the hypervisor

void Gate::Implementation::on(const gate_event::MoveBegan& event) {
  const Notify& announcement = event.announcement;
  const std::string& id = announcement.notification_id();
  const bool planned = announcement.phase() == phase::PHASE_ANNOUNCED;
  if (find(id) != nullptr) {
    if (!planned) place_known(id, common::v1::OUTCOME_AT_DESTINATION);
    return;
  }
  if (moves_.size() >= config_.max_moves || id.empty()) {
    step_->instructions.push_back({Kind::Refused, id,
                                   id.empty() ? "notification_id is empty, expected a name of the move"
                                              : "too many moves are open: " + std::to_string(moves_.size())});
    return;
  }
  if (const Move* open = planned ? nullptr : open_move_from(announcement)) {
    step_->instructions.push_back({Kind::Refused, id,
                                   announcement.destination_place() + " is where the open move " +
                                       open->record.notification_id() + " begins: an older fact"});
    return;
  }
  Move& move = moves_[id];
  move.record.set_notification_id(id);
  move.record.set_order(next_order_++);
  *move.record.mutable_subject() = announcement.subject();
  move.record.set_source_place(announcement.source_place());
  move.record.set_destination_place(announcement.destination_place());
  *move.record.mutable_announcement() = announcement;
  move.record.set_state(static_cast<std::uint32_t>(GateState::Announced));
  notify(move, announcement.phase());
  audit(move, "gate", "Announced");
  if (planned) return start_deadline(move);
  move.record.set_outcome(common::v1::OUTCOME_AT_DESTINATION);
  enter(move, GateState::Concluding, "noticed afterwards");
}

// What is only noticed afterwards may be older than a move that has begun since.
const Gate::Implementation::Move* Gate::Implementation::open_move_from(const Notify& noticed) const {
  const auto found = std::find_if(moves_.begin(), moves_.end(), [&](const auto& entry) {
    const journal::GateRecord& record = entry.second.record;
    return record.subject().id() == noticed.subject().id() && record.source_place() == noticed.destination_place() &&
           record.outcome() == common::v1::OUTCOME_UNSPECIFIED;
  });
  return found == moves_.end() ? nullptr : &found->second;
}

void Gate::Implementation::on(const gate_event::VmPaused& event) {
  Move* move = find(event.notification_id);
  if (move == nullptr) return;
  move->asking = false;
  move->instruct_due = std::min(move->instruct_due, now_);
  if (move->state() != GateState::Announced && move->state() != GateState::StandingBy) return;
  enter(*move, GateState::Paused, "");
  notify(*move, phase::PHASE_PAUSED);
  decide(*move);
}

void Gate::Implementation::place_known(const std::string& id, common::v1::Outcome outcome) {
  Move* move = find(id);
  if (move == nullptr) return;
  move->asking = false;
  const bool known = move->record.outcome() != common::v1::OUTCOME_UNSPECIFIED;
  if (known && move->record.outcome() != outcome) audit(*move, "outcome", "the hypervisor contradicts itself: ignored");
  if (known) return;
  move->record.set_outcome(outcome);
  enter(*move, GateState::Concluding,
        outcome == common::v1::OUTCOME_AT_SOURCE ? "at the source" : "at the destination");
  notify(*move, outcome_phase(move->record));
}

void Gate::Implementation::on(const gate_event::PlaceUnknown& event) {
  Move* move = find(event.notification_id);
  if (move == nullptr) return;
  move->asking = false;
  if (!std::exchange(move->master_asks, false)) return;
  auto& answer = *step_->messages.emplace_back().mutable_outcome_unknown();
  answer.set_notification_id(event.notification_id);
  answer.set_reason(event.reason);
}

// The vote is known, the VM stands still: no timer in between.
void Gate::Implementation::decide(Move& move) {
  const auto vote = move.record.vote();
  if (vote == common::v1::VOTE_NO_GO) return enter(move, GateState::Cancelling, "NO_GO: " + move.record.vote_reason());
  if (vote == common::v1::VOTE_GO && move.state() == GateState::Paused) enter(move, GateState::Continuing, "GO");
}

void Gate::Implementation::on_deadline(Move& move) {
  move.deadline = Instant::never();
  const bool go_on = config_.no_verdict == NoVerdictPolicy::Continue;
  const std::string why = std::string("nothing was heard in time, the policy is to ") + (go_on ? "continue" : "cancel");
  if (!go_on) return enter(move, GateState::Cancelling, why);
  enter(move, move.state() == GateState::Paused ? GateState::Continuing : GateState::StandingBy, why);
}

void Gate::Implementation::on(const gate_event::JournalUnavailable&) {
  for (auto& [id, move] : moves_) {
    if (move.state() != GateState::Paused || !move.deadline.has_value() || now_ < *move.deadline) continue;
    instruct(move, config_.no_verdict == NoVerdictPolicy::Continue ? Kind::Continue : Kind::Cancel,
             "the journal is not available");
  }
}

// ---- the master

void Gate::Implementation::on(const gate_event::Connected&) {
  connected_ = true;
  authorized_ = refused_ = false;
  authorize_due_ = now_;
}

void Gate::Implementation::on(const gate_event::Disconnected&) { connected_ = authorized_ = false; }

void Gate::Implementation::on(const gate_event::FromMaster& event) {
  using if_m_t::v1::MasterMessage;
  const auto& message = event.message;
  switch (message.message_case()) {
    case MasterMessage::kAuthorized:
      authorized_ = connected_;
      for (auto& [id, move] : moves_) move.notify_due = Instant{INT64_MIN};
      return;
    case MasterMessage::kRefused:
      authorized_ = false;
      refused_ = true;
      step_->audit.push_back({{}, {}, "refused", message.refused().reason()});
      return;
    case MasterMessage::kNotifyAcknowledged: return acknowledged(message.notify_acknowledged());
    case MasterMessage::kStanding:
      if (Move* move = find(message.standing().notification_id()); move != nullptr && message.standing().standby()) {
        if (move->state() == GateState::Announced) enter(*move, GateState::StandingBy, "");
      }
      return;
    case MasterMessage::kVerdict:
      if (Move* move = find(message.verdict().notification_id()); move != nullptr) verdict(*move, message.verdict());
      return;
    case MasterMessage::kOutcomeRequest: {
      const std::string& id = message.outcome_request().notification_id();
      Move* move = find(id);
      if (move == nullptr) {
        auto& answer = *step_->messages.emplace_back().mutable_outcome_unknown();
        answer.set_notification_id(id);
        answer.set_reason("no such move is open here");
      } else if (move->record.outcome() != common::v1::OUTCOME_UNSPECIFIED) {
        move->notify_due = Instant{INT64_MIN};
      } else {
        move->asking = move->master_asks = true;
        move->instruct_due = std::min(move->instruct_due, now_);
      }
      return;
    }
    case MasterMessage::kConcluded:
      if (Move* move = find(message.concluded().notification_id()); move != nullptr) {
        audit(*move, "gate", "concluded: " + message.concluded().final_state());
        instruct(*move, Kind::Concluded, message.concluded().final_state());
        forget(message.concluded().notification_id());
      }
      return;
    default: return;
  }
}

void Gate::Implementation::acknowledged(const if_m_t::v1::NotifyAcknowledged& answer) {
  Move* move = find(answer.notification_id());
  if (move == nullptr || move->record.unacknowledged_size() == 0) return;
  if (move->record.unacknowledged(0).sequence() != answer.sequence()) return;
  if (!answer.accepted()) {
    if (answer.sequence() == 1) return refuse(answer.notification_id(), answer.reason());
    audit(*move, "gate", "concluded: " + answer.reason());
    instruct(*move, Kind::Concluded, answer.reason());
    return forget(answer.notification_id());
  }
  if (move->record.migration_id() != answer.migration_id()) {
    move->record.set_migration_id(answer.migration_id());
    move->dirty = true;
  }
  const bool last = move->record.unacknowledged_size() == 1;
  if (last && move->record.outcome() != common::v1::OUTCOME_UNSPECIFIED) {
    move->outcome_acknowledged = true;  // kept, and repeated slowly until Concluded
    return;
  }
  move->record.mutable_unacknowledged()->DeleteSubrange(0, 1);
  move->notify_due = Instant{INT64_MIN};
  move->dirty = true;
}

void Gate::Implementation::verdict(Move& move, const if_m_t::v1::Verdict& verdict) {
  if (verdict.vote() == common::v1::VOTE_UNSPECIFIED || move.record.outcome() != common::v1::OUTCOME_UNSPECIFIED)
    return;
  if (move.record.vote() == common::v1::VOTE_UNSPECIFIED) {
    move.record.set_vote(verdict.vote());
    move.record.set_vote_reason(verdict.reason());
    move.dirty = true;
    audit(move, "vote", (verdict.vote() == common::v1::VOTE_GO ? "GO " : "NO_GO ") + verdict.reason());
  }
  decide(move);
}

}  // namespace sami::protocol
