// What hypervisors, operators and the master ask of the entity, and what they tell it.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "tde/entity.h"

namespace sami::tde {

namespace event = protocol::gate_event;
namespace if_m_t = ::sami::if_m_t::v1;

namespace {

tl::unexpected<Error> no_journal(const std::string& reason) {
  return failure(ErrorKind::Retry, "the journal cannot be written, nothing was begun; repeat later: " + reason);
}

// Where everything stays as it is, the migration says so of each host.
const std::vector<common::Transfer>& to_announce(const Plan& plan) {
  return plan.transfers.empty() ? plan.retained : plan.transfers;
}

bool begun_with_force(const std::vector<protocol::MoveView>& moves, const std::string& id) {
  return std::any_of(moves.begin(), moves.end(), [&](const protocol::MoveView& move) {
    return move.record.notification_id() == id && move.record.announcement().force();
  });
}

}  // namespace

void Entity::answer(const if_m_t::PathQuery& query) {
  ++counters_["path_queries"];
  if_m_t::TdeMessage message;
  auto* reply = message.mutable_path_reply();
  reply->set_query_id(query.query_id());
  if (auto found = outlook(query.subject_id(), query.destination_place()); !found) {
    reply->set_error(found.error().message);
  } else {
    if (!query.subject_id().empty()) *reply->mutable_subject() = found->plan.subject;
    reply->set_source_place(found->source_place);
    for (const auto& transfer : to_announce(found->plan)) *reply->add_transfers() = transfer;
    for (const auto& line : found->lines) reply->add_topology(line);
  }
  ports_.client.send(message);
}

void Entity::answer(const if_m_t::MoveRequest& request) {
  if_m_t::TdeMessage message;
  auto* answer = message.mutable_move_answer();
  answer->set_query_id(request.query_id());
  const auto begun = notify({.phase = if_m_t::PHASE_ANNOUNCED,
                             .subject_id = request.subject_id(),
                             .destination_place = request.destination_place(),
                             .notification_id = {},
                             .cause = common::CAUSE_VM_MIGRATION,
                             .force = request.force(),
                             .actor = request.actor()});
  if (begun) {
    answer->set_notification_id(*begun);
  } else {
    answer->set_error(begun.error().message);
  }
  ports_.client.send(message);
}

Result<std::string> Entity::notify(const Notification& notification) {
  if (!gate_) return no_journal(last_error_);
  ++counters_["notifications"];
  switch (notification.phase) {
    case if_m_t::PHASE_ANNOUNCED:
    case if_m_t::PHASE_MOVED:
    case if_m_t::PHASE_PATH_FAILED: return begin(notification);
    case if_m_t::PHASE_PAUSED:
    case if_m_t::PHASE_RESUMED:
    case if_m_t::PHASE_CANCELLED: return report(notification);
    default: break;
  }
  return failure(ErrorKind::InvalidInput,
                 "the notification has no phase; expected ANNOUNCED, PAUSED, RESUMED, CANCELLED, MOVED or PATH_FAILED");
}

// ANNOUNCED, MOVED, PATH_FAILED: a move that was not known.
Result<std::string> Entity::begin(const Notification& notification) {
  const std::string& subject_id = notification.subject_id;
  const std::string& destination = notification.destination_place;
  const bool announced = notification.phase == if_m_t::PHASE_ANNOUNCED;
  const std::string place = place_of(subject_id);
  if (place.empty()) {
    return failure(ErrorKind::InvalidInput, fmt::format("no VM {} in the topology", subject_id), ENOENT);
  }
  if (const MoveStatus* open = move_of(subject_id, false); open != nullptr) {
    const std::string id = open->notification_id;
    const bool same = open->destination_place == destination;
    if (announced && same && notification.force && !begun_with_force(gate_->moves(), id)) {
      return failure(ErrorKind::Failed, fmt::format("{} is moving to {} already ({}, {}): force that migration instead",
                                                    subject_id, destination, id, open->migration_id));
    }
    if (announced && same) return id;
    if (announced) {
      return failure(ErrorKind::Failed, fmt::format("{} is moving from {} to {} already ({}, {})", subject_id,
                                                    open->source_place, open->destination_place, id, open->state));
    }
    // A fact: either the outcome of that move, or it never arrived there and went elsewhere.
    if (!apply(same ? protocol::GateEvent(event::VmResumedAtDestination{id}) : event::VmResumedAtSource{id})) {
      return no_journal(last_error_);
    }
    if (same) return id;
  }
  if (place == destination) {
    return failure(ErrorKind::Failed, fmt::format("{} is on {} already", subject_id, destination));
  }
  auto plan = topology_.plan(subject_id, place, destination);
  if (!plan) return tl::unexpected(plan.error());
  const auto& transfers = to_announce(*plan);
  if (transfers.empty()) {
    return failure(ErrorKind::Failed,
                   fmt::format("no State Host on the paths of {} from {} or {} holds state that could "
                               "move",
                               subject_id, place, destination));
  }

  if_m_t::Notify announcement;
  const std::string id = fmt::format("{}-{}-{:x}", config_.name, next_notification_, ports_.clock.wall() / 1'000'000);
  announcement.set_notification_id(id);
  announcement.set_phase(notification.phase);
  announcement.set_cause(notification.cause != common::CAUSE_UNSPECIFIED   ? notification.cause
                         : notification.phase == if_m_t::PHASE_PATH_FAILED ? common::CAUSE_PATH_FAILURE
                                                                           : common::CAUSE_VM_MIGRATION);
  *announcement.mutable_subject() = plan->subject;
  announcement.set_source_place(place);
  announcement.set_destination_place(destination);
  for (const auto& transfer : transfers) *announcement.add_transfers() = transfer;
  announcement.set_force(notification.force);
  announcement.set_actor(notification.actor);
  const std::uint64_t next = next_notification_ + 1;
  if (!apply(event::MoveBegan{announcement}, {{std::string(kCounterKey), std::to_string(next)}})) {
    return no_journal(last_error_);
  }
  next_notification_ = next;
  ++counters_["moves"];
  const auto known = moves_.find(id);
  if (known == moves_.end() || known->second.status.instruction == "Refused") {
    return failure(ErrorKind::Failed,
                   known == moves_.end()
                       ? fmt::format("the gate takes no further move: {} are open at most", config_.gate.max_moves)
                       : known->second.status.detail);
  }
  return id;
}

// PAUSED, RESUMED, CANCELLED: what became of a move.
Result<std::string> Entity::report(const Notification& notification) {
  std::string id = notification.notification_id;
  if (id.empty()) {
    const MoveStatus* open = move_of(notification.subject_id, false);
    if (open == nullptr) open = move_of(notification.subject_id, true);
    if (open == nullptr) {
      return failure(ErrorKind::InvalidInput,
                     fmt::format("no open move of \"{}\"; expected the VM of one, or a "
                                 "notification id",
                                 notification.subject_id),
                     ENOENT);
    }
    id = open->notification_id;
  }
  const auto known = moves_.find(id);
  if (known == moves_.end()) {
    return failure(ErrorKind::InvalidInput, fmt::format("no move {}", id), ENOENT);
  }
  const MoveStatus& status = known->second.status;
  if (status.ended) {
    const bool resumed = notification.phase == if_m_t::PHASE_RESUMED;
    const bool cancelled = notification.phase == if_m_t::PHASE_CANCELLED;
    const std::string place = place_of(status.subject_id);
    if ((resumed && place == status.destination_place) || (cancelled && place == status.source_place)) return id;
    // Refused, and moved regardless: what is left is an unplanned move.
    if (resumed && status.instruction == "Refused") {
      return begin({.phase = if_m_t::PHASE_MOVED,
                    .subject_id = status.subject_id,
                    .destination_place = status.destination_place,
                    .notification_id = {},
                    .cause = notification.cause,
                    .force = notification.force,
                    .actor = notification.actor});
    }
    return failure(ErrorKind::Failed, fmt::format("move {} of {} has ended ({}), and it is on {}", id,
                                                  status.subject_id, status.detail, place));
  }
  known->second.find_out_until = Instant::never();
  protocol::GateEvent what = event::VmPaused{id};
  if (notification.phase == if_m_t::PHASE_RESUMED) what = event::VmResumedAtDestination{id};
  if (notification.phase == if_m_t::PHASE_CANCELLED) what = event::VmResumedAtSource{id};
  if (!apply(std::move(what))) return no_journal(last_error_);
  return id;
}

// The subject's open move whose outcome is, or is not, known.
const MoveStatus* Entity::move_of(const std::string& subject_id, bool decided) const {
  for (const auto& [id, known] : moves_) {
    if (known.status.ended || known.status.subject_id != subject_id) continue;
    if ((known.outcome != common::OUTCOME_UNSPECIFIED) == decided) return &known.status;
  }
  return nullptr;
}

std::string Entity::place_of(const std::string& subject_id) const {
  const auto place = places_.find(subject_id);
  return place == places_.end() ? std::string() : place->second;
}

std::vector<MoveStatus> Entity::moves() const {
  std::vector<MoveStatus> all;
  for (const auto& [id, known] : moves_) {
    if (!known.status.ended) all.push_back(known.status);
  }
  return all;
}

Result<std::shared_ptr<void>> Entity::watch(const std::string& notification_id, Watcher watcher) {
  const auto known = moves_.find(notification_id);
  if (known == moves_.end()) {
    return failure(ErrorKind::InvalidInput, fmt::format("no move {}", notification_id), ENOENT);
  }
  auto shared = std::make_shared<Watcher>(std::move(watcher));
  known->second.watchers.push_back(shared);
  const MoveStatus status = known->second.status;
  (*shared)(status);
  return std::shared_ptr<void>(shared);
}

Result<Entity::Outlook> Entity::outlook(const std::string& subject_id, const std::string& destination_place) const {
  Outlook found;
  found.lines = topology_.lines(places_);
  if (subject_id.empty()) return found;
  found.source_place = place_of(subject_id);
  if (found.source_place.empty()) {
    return failure(ErrorKind::InvalidInput, fmt::format("no VM {} in the topology", subject_id), ENOENT);
  }
  found.plan.subject = *topology_.subject(subject_id);
  if (destination_place.empty()) return found;
  auto plan = topology_.plan(subject_id, found.source_place, destination_place);
  if (!plan) return tl::unexpected(plan.error());
  found.plan = std::move(*plan);
  found.lines.insert(found.lines.end(), found.plan.notes.begin(), found.plan.notes.end());
  return found;
}

Entity::Status Entity::status() const {
  Status status;
  status.connected = authorized_;
  status.last_error = last_error_;
  status.counters = counters_;
  if (!gate_) status.lines.push_back("waiting for the journal: " + last_error_);
  for (const auto& [id, known] : moves_) {
    const MoveStatus& move = known.status;
    if (move.ended) continue;
    status.lines.push_back(fmt::format("{}: {} from {} to {}: {}{}{}", id, move.subject_id, move.source_place,
                                       move.destination_place, move.state, move.instruction.empty() ? "" : ", told ",
                                       move.instruction));
  }
  return status;
}

}  // namespace sami::tde
