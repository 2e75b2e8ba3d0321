// What TDEs say to the SOM's machine: sessions, inventory, notifications.
#include <fmt/format.h>

#include <algorithm>

#include "protocol/som_implementation.h"
#include "protocol/validation.h"

namespace sami::protocol {

using if_m_t::v1::TdeMessage;
namespace phase = if_m_t::v1;

namespace {
constexpr std::size_t maximum_refused = 1000;
constexpr std::size_t maximum_inventory = 200'000;

common::v1::Outcome outcome_of(if_m_t::v1::Phase p) {
  switch (p) {
    case phase::PHASE_RESUMED:
    case phase::PHASE_MOVED:
    case phase::PHASE_PATH_FAILED: return common::v1::OUTCOME_AT_DESTINATION;
    case phase::PHASE_CANCELLED: return common::v1::OUTCOME_AT_SOURCE;
    default: return common::v1::OUTCOME_UNSPECIFIED;
  }
}

std::string_view word(if_m_t::v1::Phase p) {
  constexpr std::string_view prefix = "PHASE_";
  std::string_view name = if_m_t::v1::Phase_Name(p);
  return name.starts_with(prefix) ? name.substr(prefix.size()) : std::string_view("an unknown phase");
}
}  // namespace

void Som::Implementation::on(const som_event::TdeConnected& event) { peers_.tdes[event.tde] = {true, false}; }
void Som::Implementation::on(const som_event::TdeDisconnected& event) { peers_.tdes[event.tde] = {}; }

void Som::Implementation::on(const som_event::FromTde& event) {
  TdeSession& tde = peers_.tdes[event.tde];
  if (!tde.connected) return;
  const TdeMessage& message = event.message;
  if (message.message_case() == TdeMessage::kAuthorize) return authorize_tde(event.tde, message.authorize());
  if (!tde.authorized) return ignored(event.tde, "it has not been authorized yet");
  switch (message.message_case()) {
    case TdeMessage::kNotify: return take_notification(event.tde, message.notify());
    case TdeMessage::kInventory: return take_inventory(event.tde, message.inventory());
    case TdeMessage::kOutcomeUnknown: {
      MigrationRun* run = find_notified(event.tde, message.outcome_unknown().notification_id());
      if (run == nullptr || run->record().state() != journal::IN_DOUBT) return;
      return ignored(event.tde, fmt::format("it cannot say where {} runs: {}", run->record().subject().id(),
                                            message.outcome_unknown().reason()));
    }
    case TdeMessage::MESSAGE_NOT_SET: return ignored(event.tde, "it is empty, or of a newer version");
    default: return;  // answers to the shell's own queries
  }
}

void Som::Implementation::authorize_tde(const std::string& tde, const if_m_t::v1::Authorize& authorize) {
  step_->to_tdes.push_back({tde, {}});
  auto& answer = step_->to_tdes.back().message;
  std::uint32_t version = 0;
  for (const auto known : config_.protocol_versions) {
    if (std::count(authorize.protocol_versions().begin(), authorize.protocol_versions().end(), known) > 0)
      version = std::max(version, known);
  }
  if (!authorize.identity().ends_with("/sami/tde/" + tde)) {
    answer.mutable_refused()->set_reason(fmt::format("identity is '{}', expected spiffe://<domain>/sami/tde/{}",
                                                     authorize.identity().substr(0, 256), tde));
  } else if (version == 0) {
    answer.mutable_refused()->set_reason(fmt::format("no common protocol version: {} offered, the master knows {}",
                                                     fmt::join(authorize.protocol_versions(), ", "),
                                                     fmt::join(config_.protocol_versions, ", ")));
  } else {
    answer.mutable_authorized()->set_protocol_version(version);
    peers_.tdes[tde].authorized = true;
    const std::vector<std::string> active(active_.begin(), active_.end());
    for (const auto& id : active) {
      if (runs_.at(id)->record().tde() != tde) continue;
      runs_.at(id)->tde_returned();
      drive(*runs_.at(id));
    }
    return;
  }
  ignored(tde, answer.refused().reason());
}

void Som::Implementation::take_inventory(const std::string& tde, const if_m_t::v1::Inventory& inventory) {
  std::erase_if(inventory_, [&](const auto& entry) { return entry.second.tde == tde; });
  for (const auto& place : inventory.places()) {
    if (inventory_.size() >= maximum_inventory) return ignored(tde, "the inventory is too long");
    if (const auto error = check_subject(place.subject()); !error.empty()) {
      ignored(tde, "inventory: " + error);
      continue;
    }
    inventory_[place.subject().id()] = {place.subject(), tde};
    journal::SubjectRecord& record = subjects_[place.subject().id()];
    record.set_id(place.subject().id());
    if (record.open_migration().empty()) record.set_place(place.server());
  }
}

MigrationRun* Som::Implementation::find_notified(const std::string& tde, const std::string& notification_id) {
  const auto found = notified_.find({tde, notification_id});
  return found == notified_.end() ? nullptr : find_run(found->second);
}

void Som::Implementation::acknowledge(const std::string& tde, const Notify& notify, const std::string& migration_id,
                                      const std::string& refused) {
  step_->to_tdes.push_back({tde, {}});
  auto& answer = *step_->to_tdes.back().message.mutable_notify_acknowledged();
  answer.set_notification_id(notify.notification_id());
  answer.set_sequence(notify.sequence());
  answer.set_migration_id(migration_id);
  answer.set_accepted(refused.empty());
  answer.set_reason(refused);
}

void Som::Implementation::take_notification(const std::string& tde, const Notify& notify) {
  const std::pair key{tde, notify.notification_id()};
  if (MigrationRun* run = find_notified(tde, notify.notification_id())) return take_phase(*run, tde, notify);
  if (const auto old = refused_.find(key); old != refused_.end()) return acknowledge(tde, notify, {}, old->second);
  if (!begins_move(notify.phase())) {
    if (notify.sequence() <= 1)
      return acknowledge(tde, notify, {},
                         fmt::format("{}: a move begins with ANNOUNCED, MOVED or PATH_FAILED", word(notify.phase())));
    return acknowledge(tde, notify, {}, "the master knows nothing of this move");
  }
  std::string reason = refusal(notify);
  if (reason.empty() && busy(tde, notify)) return;
  if (reason.empty() && refused_.contains(key)) reason = refused_[key];
  if (reason.empty()) return begin(tde, notify);
  if (refused_.emplace(key, reason).second) refused_order_.push_back(key);
  if (refused_order_.size() > maximum_refused) {
    refused_.erase(refused_order_.front());
    refused_order_.pop_front();
  }
  step_->audit.push_back({{}, notify.subject().id().substr(0, 128), "refused", reason.substr(0, 512)});
  acknowledge(tde, notify, {}, reason);
}

// Nothing: it may begin, unless the subject is busy.
std::string Som::Implementation::refusal(const Notify& notify) const {
  if (auto error = check_announcement(notify, config_.max_transfers); !error.empty()) return error;
  const bool planned = notify.phase() == phase::PHASE_ANNOUNCED;
  const auto subject = subjects_.find(notify.subject().id());
  const std::string open = subject == subjects_.end() ? "" : subject->second.open_migration();
  if (!open.empty() && planned) {
    const auto state = runs_.at(open)->record().state();
    if (state == journal::IN_DOUBT)
      return fmt::format("BUSY: {} of {} is IN_DOUBT; say where it runs, or resolve it, first", open,
                         notify.subject().id());
    if (state != journal::RELEASING && state != journal::ROLLING_BACK)
      return fmt::format("BUSY: {} of {} is {}", open, notify.subject().id(), to_string(state));
  }
  if (!planned) return {};
  const auto open_now =
      std::count_if(runs_.begin(), runs_.end(), [](const auto& entry) { return !entry.second->final(); });
  if (static_cast<std::uint64_t>(open_now) >= config_.max_migrations)
    return fmt::format("BUSY: {} migrations are open, the limit is {}", open_now, config_.max_migrations);
  for (const auto& t : notify.transfers()) {
    if (drained_.contains(t.destination_host()))
      return fmt::format("State Host {} is drained: it takes no new transfers", t.destination_host());
  }
  common::v1::Subject subject_copy = notify.subject();
  return address_conflict(subject_copy, false);
}

// True: not now, the TDE asks again. A fact about the open migration is taken as its outcome.
bool Som::Implementation::busy(const std::string& tde, const Notify& notify) {
  const std::string open = subjects_[notify.subject().id()].open_migration();
  if (open.empty()) {
    const auto open_now =
        std::count_if(runs_.begin(), runs_.end(), [](const auto& entry) { return !entry.second->final(); });
    return static_cast<std::uint64_t>(open_now) >= config_.max_migrations;
  }
  if (notify.phase() == phase::PHASE_ANNOUNCED) return true;
  MigrationRun& run = *runs_.at(open);
  if (run.record().destination_place() != notify.destination_place() || run.record().state() == journal::ROLLING_BACK)
    return true;
  run.add_alias(tde, notify.notification_id(), notify.sequence() - 1);
  notified_[{tde, notify.notification_id()}] = open;
  take_phase(run, tde, notify);
  return true;
}

void Som::Implementation::take_phase(MigrationRun& run, const std::string& tde, const Notify& notify) {
  const std::uint32_t last = run.last_sequence(tde, notify.notification_id());
  if (notify.sequence() > last + 1) return;  // it comes again, in order
  if (notify.sequence() == last + 1) {
    run.note_sequence(tde, notify.notification_id(), notify.sequence());
    auto c = context();
    if (notify.phase() == phase::PHASE_PAUSED) run.paused(c);
    if (const auto outcome = outcome_of(notify.phase()); outcome != common::v1::OUTCOME_UNSPECIFIED)
      run.outcome(c, outcome, word(notify.phase()), false);
  }
  acknowledge(tde, notify, run.id(), {});
  run.tde_returned();
  const bool was_final = run.final();
  drive(run);
  if (was_final) {
    auto c = context();
    run.say_concluded(c);
  }
}

namespace {
bool covers(const common::v1::Prefix& prefix, const std::string& address) {
  if (prefix.address().size() != address.size()) return false;
  for (std::uint32_t bit = 0; bit < prefix.length() && bit / 8 < address.size(); ++bit) {
    const auto mask = static_cast<unsigned char>(0x80U >> (bit % 8));
    if (((prefix.address()[bit / 8] ^ address[bit / 8]) & mask) != 0) return false;
  }
  return true;
}
}  // namespace

// An address belongs to one subject of its VN, and nobody learns within a prefix that has another's. Empty: no
// conflict; `drop` takes the offending addresses out.
std::string Som::Implementation::address_conflict(common::v1::Subject& subject, bool drop) const {
  std::string conflict;
  for (auto& nic : *subject.mutable_interfaces()) {
    auto& addresses = *nic.mutable_addresses();
    const auto owned_elsewhere = [&](const std::string& address) {
      for (const auto& [id, place] : inventory_) {
        if (id == subject.id()) continue;
        for (const auto& other : place.subject.interfaces()) {
          if (other.vn_name() != nic.vn_name() ||
              std::find(other.addresses().begin(), other.addresses().end(), address) == other.addresses().end())
            continue;
          conflict = fmt::format("an address of {} in VN {} belongs to {}", subject.id(), nic.vn_name(), id);
          return true;
        }
      }
      return false;
    };
    auto& prefixes = *nic.mutable_learned_within();
    const auto has_anothers = [&](const common::v1::Prefix& prefix) {
      for (const auto& [id, place] : inventory_) {
        for (const auto& other : place.subject.interfaces()) {
          if (id == subject.id() || other.vn_name() != nic.vn_name() ||
              std::none_of(other.addresses().begin(), other.addresses().end(),
                           [&](const std::string& address) { return covers(prefix, address); }))
            continue;
          conflict = fmt::format("a prefix of {} in VN {} has an address of {}", subject.id(), nic.vn_name(), id);
          return true;
        }
      }
      return false;
    };
    if (drop) {
      addresses.erase(std::remove_if(addresses.begin(), addresses.end(), owned_elsewhere), addresses.end());
      prefixes.erase(std::remove_if(prefixes.begin(), prefixes.end(), has_anothers), prefixes.end());
    } else if (std::any_of(addresses.begin(), addresses.end(), owned_elsewhere) ||
               std::any_of(prefixes.begin(), prefixes.end(), has_anothers)) {
      return conflict;
    }
  }
  return conflict;
}

void Som::Implementation::begin(const std::string& tde, const Notify& notify) {
  const bool planned = notify.phase() == phase::PHASE_ANNOUNCED;
  journal::SubjectRecord& subject = subjects_[notify.subject().id()];
  subject.set_id(notify.subject().id());
  subject.set_epoch(subject.epoch() + 1);
  journal::Migration migration;
  migration.set_id(fmt::format("m{:06}", next_migration_++));
  migration.set_state(journal::PLANNED);
  *migration.mutable_subject() = notify.subject();
  migration.set_epoch(subject.epoch());
  migration.set_cause(notify.cause());
  migration.set_conflict_rule(planned ? common::v1::CONFLICT_RULE_PLANNED : common::v1::CONFLICT_RULE_MOVED);
  migration.set_source_place(notify.source_place());
  migration.set_destination_place(notify.destination_place());
  migration.set_tde(tde);
  migration.set_notification_id(notify.notification_id());
  for (const auto& c : config_.classes) *migration.add_classes() = c;
  migration.set_force(notify.force());
  migration.set_actor(notify.actor());
  for (const auto& plan : notify.transfers()) *migration.add_transfers()->mutable_plan() = plan;
  if (!planned) {
    if (const auto conflict = address_conflict(*migration.mutable_subject(), true); !conflict.empty())
      step_->audit.push_back({migration.id(), subject.id(), "refused", conflict + ": it does not move with it"});
  }
  add_leftovers(migration, subject);
  subject.set_open_migration(migration.id());
  step_->journal.push_back({"subject/" + subject.id(), subject.SerializeAsString()});
  save_som();
  notified_[{tde, notify.notification_id()}] = migration.id();
  active_.insert(migration.id());
  if (heartbeat_at_ == Instant::never()) heartbeat_at_ = now_;
  auto& run = *(runs_[migration.id()] = std::make_unique<MigrationRun>(migration, now_));
  auto c = context();
  run.announced(c);
  if (notify.force())
    step_->audit.push_back({run.id(), subject.id(), "operator", fmt::format("force by {}", notify.actor())});
  // Whatever its number: notifications of a move that went before it are lost with the master's memory of them.
  run.note_sequence(tde, notify.notification_id(), notify.sequence() - 1);
  take_phase(run, tde, notify);
}

void Som::Implementation::add_leftovers(journal::Migration& migration, const journal::SubjectRecord& subject) {
  const auto& transfers = migration.transfers();
  const int planned = transfers.size();
  for (const auto& holder : subject.holders()) {
    const bool on_path = std::any_of(transfers.begin(), transfers.begin() + planned, [&](const auto& t) {
      return (t.plan().source_host() == holder.host() &&
              context_name(t.plan().source_context()) == context_name(holder.context())) ||
             (t.plan().destination_host() == holder.host() &&
              context_name(t.plan().destination_context()) == context_name(holder.context()));
    });
    if (on_path || static_cast<std::uint32_t>(transfers.size()) >= config_.max_transfers) continue;
    if (!peers_.registered(holder.host())) {
      step_->audit.push_back({migration.id(), subject.id(), "holder",
                              holder.host() + " may hold more of its state, but is not connected"});
      continue;
    }
    const common::v1::Transfer* onward = &transfers[0].plan();
    for (const auto& t : transfers) {
      if (t.plan().source_host() == holder.transfer().destination_host()) onward = &t.plan();
    }
    common::v1::Transfer extra = holder.transfer();
    extra.set_index(static_cast<std::uint32_t>(transfers.size()));
    extra.set_destination_host(onward->destination_host());
    extra.set_destination_context(onward->destination_context());
    extra.set_leftover(true);
    *migration.add_transfers()->mutable_plan() = extra;
  }
}

}  // namespace sami::protocol
