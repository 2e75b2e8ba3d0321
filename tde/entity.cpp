#include "tde/entity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace sami::tde {

namespace event = protocol::gate_event;
namespace if_m_t = ::sami::if_m_t::v1;
using Kind = protocol::HypervisorInstruction::Kind;

namespace {

constexpr std::string_view kPlaceKey = "place/";
constexpr std::size_t kEndedMoves = 256;

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::MayPause: return "MayPause";
    case Kind::Continue: return "Continue";
    case Kind::Cancel: return "Cancel";
    case Kind::FindOut: return "FindOut";
    case Kind::Concluded: return "Concluded";
    case Kind::Refused: break;
  }
  return "Refused";
}

std::uint64_t number(const std::string& text) {
  std::uint64_t value = 1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Entity::Entity(EntityConfig config, Topology topology, EntityPorts ports)
    : config_(std::move(config)), topology_(std::move(topology)), ports_(std::move(ports)) {}

Entity::~Entity() { ports_.loop.cancel(timer_); }

void Entity::start() {
  rebuild();
  ports_.client.start({.on_connected =
                           [this] {
                             connected_ = true;
                             ++counters_["connections"];
                             ports_.log.info("connected to the master");
                             apply(event::Connected{});
                           },
                       .on_message = [this](const if_m_t::MasterMessage& message) { take(message); },
                       .on_disconnected =
                           [this](const std::string& reason) {
                             if (connected_ || reason != last_error_) {
                               ports_.log.warning("not connected to the master", {{"reason", reason}});
                             }
                             last_error_ = reason;
                             if (!connected_) return;
                             connected_ = false;
                             apply(event::Disconnected{});
                           }});
}

// The machine from what the journal holds; on failure again later.
void Entity::rebuild() {
  rebuild_at_ = Instant::never();
  auto image = ports_.journal.load();
  if (!image) return fail(image.error());
  places_.clear();
  for (const auto& vm : topology_.description().vms) places_[vm.subject.id()] = vm.server;
  for (auto entry = image->begin(); entry != image->end();) {
    const bool place = entry->first.starts_with(kPlaceKey);
    if (place) {
      const auto known = places_.find(entry->first.substr(kPlaceKey.size()));
      if (known != places_.end() && topology_.has_server(entry->second)) known->second = entry->second;
    } else if (entry->first == kCounterKey) {
      next_notification_ = number(entry->second);
    }
    entry = place || entry->first == kCounterKey ? image->erase(entry) : std::next(entry);
  }
  if (failures_ > 1 && !emergency_) {
    emergency_.emplace(config_.gate, *image);
    (void)emergency_->step(ports_.loop.now(), event::Tick{});  // its deadlines run from now on
  }
  gate_.emplace(config_.gate, *image);
  authorized_ = false;
  refresh();
  if (connected_) {
    apply(event::Connected{});
  } else {
    apply(event::Tick{});
  }
}

void Entity::fail(const Error& error) {
  ++failures_;
  ++counters_["journal_failures"];
  last_error_ = "the journal failed: " + error.message;
  const Duration delay =
      std::min(config_.rebuild_delay * (1U << std::min(failures_ - 1, 10U)), config_.maximum_rebuild_delay);
  ports_.log.error("the journal failed; starting again from what it holds",
                   {Field(error), {"again_in_ms", delay / std::chrono::milliseconds(1)}});
  gate_.reset();
  authorized_ = false;
  rebuild_at_ = ports_.loop.now() + delay;
  if (emergency_) {
    const auto step = emergency_->step(ports_.loop.now(), event::JournalUnavailable{});
    for (const auto& instruction : step.instructions) instruct(instruction);
  }
  ports_.client.reconnect(last_error_);
  arm();
}

void Entity::tick() {
  timer_ = 0;
  const Instant now = ports_.loop.now();
  if (rebuild_at_ <= now) return rebuild();
  std::vector<std::string> unanswered;
  for (auto& [id, known] : moves_) {
    if (known.find_out_until > now) continue;
    known.find_out_until = Instant::never();
    unanswered.push_back(id);
  }
  for (const auto& id : unanswered) {
    apply(event::PlaceUnknown{id, "no hypervisor said where the VM runs"});
  }
  apply(event::Tick{});
}

void Entity::arm() {
  Instant next = std::min(rebuild_at_, gate_ ? gate_->next_deadline() : Instant::never());
  for (const auto& [id, known] : moves_) next = std::min(next, known.find_out_until);
  ports_.loop.cancel(timer_);
  timer_ = next == Instant::never() ? 0 : ports_.loop.call_at(next, [this] { tick(); });
}

bool Entity::apply(protocol::GateEvent event, std::vector<JournalWrite> also) {
  if (!gate_) return false;
  protocol::GateStep step = gate_->step(ports_.loop.now(), std::move(event));
  std::vector<JournalWrite> places = changed_places();
  std::vector<JournalWrite> writes = std::move(step.journal);
  writes.insert(writes.end(), also.begin(), also.end());
  writes.insert(writes.end(), places.begin(), places.end());
  if (!writes.empty()) {
    if (auto committed = ports_.journal.commit(writes); !committed) {
      fail(committed.error());
      return false;
    }
    failures_ = 0;
    emergency_.reset();
  }
  for (const auto& write : places) places_[write.key.substr(kPlaceKey.size())] = *write.value;
  for (const auto& message : step.messages) ports_.client.send(message);
  audit(step.audit);
  const bool authorized_now = gate_->authorized() && !authorized_;
  authorized_ = gate_->authorized();
  if (authorized_now || (authorized_ && !places.empty())) send_inventory();
  refresh();
  for (const auto& instruction : step.instructions) instruct(instruction);
  arm();
  return true;
}

// A place changes when the outcome of a move is notified, and is journaled with it.
std::vector<JournalWrite> Entity::changed_places() const {
  std::vector<JournalWrite> writes;
  for (const auto& move : gate_->moves()) {
    const auto& record = move.record;
    const auto move_before = moves_.find(record.notification_id());
    if (record.outcome() == common::OUTCOME_UNSPECIFIED ||
        (move_before != moves_.end() && move_before->second.outcome != common::OUTCOME_UNSPECIFIED)) {
      continue;
    }
    const std::string& place =
        record.outcome() == common::OUTCOME_AT_DESTINATION ? record.destination_place() : record.source_place();
    const auto known = places_.find(record.subject().id());
    if (known == places_.end() || known->second == place) continue;
    writes.push_back({std::string(kPlaceKey) + record.subject().id(), place});
  }
  return writes;
}

void Entity::take(const if_m_t::MasterMessage& message) {
  if (message.has_path_query()) return answer(message.path_query());
  if (message.has_move_request()) return answer(message.move_request());
  if (message.has_refused()) {
    last_error_ = "refused by the master: " + message.refused().reason();
    ports_.log.error("refused by the master", {{"reason", message.refused().reason()}});
  }
  apply(event::FromMaster{message});
}

void Entity::send_inventory() {
  if_m_t::TdeMessage message;
  for (const auto& vm : topology_.description().vms) {
    auto* place = message.mutable_inventory()->add_places();
    *place->mutable_subject() = vm.subject;
    place->set_server(places_.at(vm.subject.id()));
  }
  ports_.client.send(message);
}

// What watchers see, after every step.
void Entity::refresh() {
  for (const auto& move : gate_->moves()) {
    const auto& record = move.record;
    Known& known = moves_[record.notification_id()];
    known.outcome = record.outcome();
    MoveStatus status = known.status;
    status.notification_id = record.notification_id();
    status.migration_id = record.migration_id();
    status.subject_id = record.subject().id();
    status.source_place = record.source_place();
    status.destination_place = record.destination_place();
    status.state = protocol::to_string(move.state);
    if (status == known.status) continue;
    known.status = std::move(status);
    publish(known);
  }
}

void Entity::instruct(const protocol::HypervisorInstruction& instruction) {
  const auto found = moves_.find(instruction.notification_id);
  if (found == moves_.end()) return;
  Known& known = found->second;
  MoveStatus status = known.status;
  status.instruction = name_of(instruction.kind);
  status.detail = instruction.detail;
  if (instruction.kind == Kind::FindOut && known.find_out_until == Instant::never()) {
    known.find_out_until = ports_.loop.now() + config_.find_out_deadline;
  }
  if (instruction.kind == Kind::Concluded || instruction.kind == Kind::Refused) {
    status.state = "Ended";
    status.ended = true;
    known.find_out_until = Instant::never();
  }
  if (status == known.status) return;
  ports_.log.info("told the hypervisor", {{"move", instruction.notification_id},
                                          {"subject", status.subject_id},
                                          {"instruction", status.instruction},
                                          {"detail", status.detail}});
  const bool ends = status.ended && !known.status.ended;
  known.status = std::move(status);
  publish(known);
  if (!ends) return;
  ended_.push_back(instruction.notification_id);
  while (ended_.size() > kEndedMoves) {
    moves_.erase(ended_.front());
    ended_.pop_front();
  }
}

void Entity::audit(const std::vector<protocol::AuditEntry>& entries) {
  if (entries.empty()) return;
  std::vector<AuditRecord> records;
  for (const auto& entry : entries) {
    ports_.log.info(entry.event,
                    {{"migration", entry.migration_id}, {"subject", entry.subject_id}, {"detail", entry.detail}});
    records.push_back({ports_.clock.wall(), entry.migration_id, entry.subject_id, entry.event, entry.detail});
  }
  if (auto kept = ports_.audit.append(records); !kept) {
    ++counters_["audit_failures"];
    ports_.log.error("the audit trail cannot be written", {Field(kept.error())});
  }
}

void Entity::publish(Known& known) {
  const MoveStatus status = known.status;
  std::vector<std::shared_ptr<Watcher>> watchers;
  std::erase_if(known.watchers, [&](const auto& weak) {
    auto watcher = weak.lock();
    if (watcher != nullptr) watchers.push_back(watcher);
    return watcher == nullptr;
  });
  for (const auto& watcher : watchers) (*watcher)(status);
}

}  // namespace sami::tde
