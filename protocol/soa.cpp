#include "protocol/soa.h"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/findings.h"
#include "protocol/soa_destination.h"
#include "protocol/soa_source.h"
#include "protocol/validation.h"

namespace sami::protocol {

using namespace if_m_a::v1;  // the states' names

namespace {

constexpr std::string_view epoch_prefix = "epoch/";
constexpr std::string_view transfer_prefix = "transfer/";

TransferKey key_of(const common::v1::TransferReference& reference, TransferRole role) {
  return {reference.migration_id(), reference.transfer(), role};
}

// Names become parts of journal keys.
bool well_formed(const common::v1::TransferReference& reference) {
  const std::string& id = reference.migration_id();
  return !id.empty() && id.size() <= 64 && !reference.subject_id().empty() && reference.subject_id().size() <= 128 &&
         reference.epoch() > 0 && reference.transfer() < 1024 &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 127 && c != '/'; });
}

}  // namespace

class Soa::Implementation {
 public:
  Implementation(SoaConfig config, const JournalImage& journal);

  SoaStep step(Instant now, SoaEvent event);
  Instant next_deadline() const;
  bool authorized() const { return registered_; }
  std::vector<TransferView> transfers() const;

 private:
  void on(SoaContext& context, soa_event::Connected&);
  void on(SoaContext& context, soa_event::Disconnected&);
  void on(SoaContext& context, soa_event::FromMaster& event);
  void on(SoaContext& context, soa_event::FromDriver& event);
  void on(SoaContext& context, soa_event::Tick&);
  void on(SoaContext& context, soa_event::JournalUnavailable&);

  void recover(SoaContext& context);
  void say_hello(SoaContext& context);
  void say_status(SoaContext& context) const;
  template <typename List>
  void list_transfers(List* into) const;

  void get_ready(SoaContext& context, const GetReady& request);
  void upload_request(SoaContext& context, const UploadRequest& request);
  void release(SoaContext& context, const Release& release);
  void rollback(SoaContext& context, const Rollback& rollback);
  template <typename Request>
  bool admit(SoaContext& context, const Request& request, TransferRole role);
  bool stale(const common::v1::TransferReference& reference) const;
  void raise_epoch(SoaContext& context, const common::v1::TransferReference& reference);
  void supersede(SoaContext& context, const TransferKey& by, const common::v1::TransferReference& reference,
                 const std::string& host_context);
  void reject(SoaContext& context, const common::v1::TransferReference& reference, TransferRole role,
              common::v1::FindingCode code, const std::string& detail);
  bool answer_as_before(SoaContext& context, const TransferKey& key, const std::string& subject);
  void remember(SoaContext& context, const common::v1::TransferReference& reference, const AgentMessage& answer);
  template <typename Message>
  void answer_unknown(SoaContext& context, const common::v1::TransferReference& reference, TransferRole role,
                      Message* (AgentMessage::*part)());
  void collect(SoaContext& context);
  void save_epoch(SoaContext& context, const std::string& subject) const;
  SourceTransfer* source(const common::v1::TransferReference& reference);
  DestinationTransfer* destination(const common::v1::TransferReference& reference);

  SoaConfig config_;
  JournalImage image_;  // until the first step
  bool recovered_ = false;
  std::uint32_t incarnation_ = 1;
  CallTable calls_;
  std::map<std::string, journal::EpochRecord> epochs_;  // by subject
  std::map<TransferKey, std::unique_ptr<SourceTransfer>> sources_;
  std::map<TransferKey, std::unique_ptr<DestinationTransfer>> destinations_;
  std::vector<TransferView> preview_;  // of what the journal holds, until the first step
  KeysByClass inherited_;              // by the transfer that is being admitted
  bool connected_ = false;
  bool authorized_ = false;
  bool registered_ = false;
  bool refused_ = false;
  Instant hello_due_{INT64_MIN};
};

Soa::Soa(SoaConfig config, const JournalImage& journal)
    : implementation_(std::make_unique<Implementation>(std::move(config), journal)) {}
Soa::~Soa() = default;
Soa::Soa(Soa&&) noexcept = default;
Soa& Soa::operator=(Soa&&) noexcept = default;
SoaStep Soa::step(Instant now, SoaEvent event) { return implementation_->step(now, std::move(event)); }
Instant Soa::next_deadline() const { return implementation_->next_deadline(); }
bool Soa::authorized() const { return implementation_->authorized(); }
std::vector<TransferView> Soa::transfers() const { return implementation_->transfers(); }

// ---- life

Soa::Implementation::Implementation(SoaConfig config, const JournalImage& journal)
    : config_(std::move(config)), image_(journal) {
  for (const auto& [key, value] : image_) {
    if (key == "agent") {
      journal::AgentRecord record;
      if (record.ParseFromString(value)) incarnation_ = record.incarnation() + 1;
    } else if (key.starts_with(epoch_prefix)) {
      journal::EpochRecord record;
      if (record.ParseFromString(value)) epochs_[key.substr(epoch_prefix.size())] = record;
    } else if (key.starts_with(transfer_prefix)) {
      journal::AgentTransfer record;
      if (!record.ParseFromString(value)) continue;
      auto& view = preview_.emplace_back();
      *view.status.mutable_transfer() = record.reference();
      view.status.set_role(record.role());
      view.status.set_state(record.state());
      view.status.set_generation(record.generation());
      view.barrier = record.barrier();
    }
  }
  calls_.next = (static_cast<std::uint64_t>(incarnation_) << 32U) + 1;
}

void Soa::Implementation::recover(SoaContext& context) {
  recovered_ = true;
  preview_.clear();
  journal::AgentRecord agent;
  agent.set_incarnation(incarnation_);
  context.step.journal.push_back({"agent", agent.SerializeAsString()});
  const JournalImage image = std::exchange(image_, {});
  for (const auto& [key, value] : image) {
    journal::AgentTransfer record;
    if (!key.starts_with(transfer_prefix) || !record.ParseFromString(value)) continue;
    const TransferKey transfer = key_of(record.reference(), record.role());
    if (record.role() == TRANSFER_ROLE_SOURCE) {
      sources_[transfer] = std::make_unique<SourceTransfer>(context, std::move(record), true);
      continue;
    }
    std::vector<journal::KeyBatch> batches;
    const std::string prefix = keys_prefix(transfer);
    for (auto it = image.lower_bound(prefix); it != image.end() && it->first.starts_with(prefix); ++it) {
      batches.emplace_back();
      if (!batches.back().ParseFromString(it->second)) batches.back().Clear();
    }
    destinations_[transfer] = std::make_unique<DestinationTransfer>(context, std::move(record), batches);
  }
}

SoaStep Soa::Implementation::step(Instant now, SoaEvent event) {
  SoaStep step;
  SoaContext context{config_, now, step, calls_};
  if (auto* e = std::get_if<soa_event::JournalUnavailable>(&event)) {
    on(context, *e);
    return step;
  }
  if (!recovered_) recover(context);
  std::visit([&](auto& e) { on(context, e); }, event);
  for (auto& [key, transfer] : sources_) {
    if (transfer->next_deadline() <= now) transfer->tick(context);
  }
  for (auto& [key, transfer] : destinations_) {
    if (transfer->next_deadline() <= now) transfer->tick(context);
  }
  collect(context);
  if (connected_ && !registered_ && !refused_ && hello_due_ <= now) say_hello(context);
  return step;
}

Instant Soa::Implementation::next_deadline() const {
  if (!recovered_) return Instant{INT64_MIN};
  Instant next = connected_ && !registered_ && !refused_ ? hello_due_ : Instant::never();
  for (const auto& [key, transfer] : sources_) next = std::min(next, transfer->next_deadline());
  for (const auto& [key, transfer] : destinations_) next = std::min(next, transfer->next_deadline());
  return next;
}

std::vector<TransferView> Soa::Implementation::transfers() const {
  std::vector<TransferView> views = preview_;
  for (const auto& [key, transfer] : sources_) views.push_back(transfer->view());
  for (const auto& [key, transfer] : destinations_) views.push_back(transfer->view());
  return views;
}

// Transfers that have ended: their journal entries go in the step that answers.
void Soa::Implementation::collect(SoaContext& context) {
  const auto end = [&](const TransferBase& transfer) {
    context.step.journal.push_back({transfer_key(transfer.key()), std::nullopt});
    const auto& reference = transfer.record().reference();
    if (const auto& answer = transfer.ending()->answer) {
      remember(context, reference, *answer);
      context.step.messages.push_back(*answer);
    } else if (transfer.key().role == TRANSFER_ROLE_SOURCE) {
      (*epochs_[reference.subject_id()].mutable_generation())[reference.transfer()] = transfer.record().generation();
      save_epoch(context, reference.subject_id());
    }
  };
  std::erase_if(sources_,
                [&](const auto& entry) { return entry.second->ending() ? (end(*entry.second), true) : false; });
  std::erase_if(destinations_, [&](const auto& entry) {
    if (!entry.second->ending()) return false;
    entry.second->erase_keys(context);
    end(*entry.second);
    return true;
  });
}

void Soa::Implementation::save_epoch(SoaContext& context, const std::string& subject) const {
  context.step.journal.push_back({std::string(epoch_prefix) + subject, epochs_.at(subject).SerializeAsString()});
}

// ---- sessions

void Soa::Implementation::on(SoaContext& context, soa_event::Connected&) {
  connected_ = true;
  authorized_ = registered_ = refused_ = false;
  hello_due_ = context.now;
}

void Soa::Implementation::on(SoaContext& context, soa_event::Disconnected&) {
  connected_ = authorized_ = registered_ = false;
  for (auto& [key, transfer] : destinations_) transfer->on_master_lost(context);
}
void Soa::Implementation::on(SoaContext&, soa_event::Tick&) {}

void Soa::Implementation::on(SoaContext& context, soa_event::FromDriver& event) {
  const auto found = calls_.open.find(event.reply.id);
  if (found == calls_.open.end()) return;
  const CallTable::Target target = std::move(found->second);
  calls_.open.erase(found);
  if (const auto s = sources_.find(target.transfer); s != sources_.end())
    s->second->on_reply(context, target.state_class, std::move(event.reply));
  else if (const auto d = destinations_.find(target.transfer); d != destinations_.end())
    d->second->on_reply(context, target.state_class, std::move(event.reply));
}

// Nothing durable can be done: no barrier is left standing.
void Soa::Implementation::on(SoaContext& context, soa_event::JournalUnavailable&) {
  for (const auto& [key, transfer] : sources_) {
    if (!transfer->barrier()) continue;
    for (const auto& profile : config_.drivers) {
      if (profile.needs_barrier)
        context.step.calls.push_back(
            {calls_.next++, profile.state_class, transfer->scope(), driver_call::LowerBarrier{}});
    }
  }
}

void Soa::Implementation::say_hello(SoaContext& context) {
  hello_due_ = context.now + config_.repeat_interval;
  auto& message = context.step.messages.emplace_back();
  if (!authorized_) {
    auto& authorize = *message.mutable_authorize();
    authorize.set_identity(config_.identity);
    for (const auto version : config_.protocol_versions) authorize.add_protocol_versions(version);
    for (const auto& address : config_.addresses) authorize.add_addresses(address);
    return authorize.set_software_version(config_.software_version);
  }
  auto& profile = *message.mutable_register_();
  profile = config_.profile;
  profile.set_host(config_.host);
  profile.set_max_concurrent_transfers(config_.max_open_transfers);
  for (const auto& driver : config_.drivers) {
    ClassProfile* c = nullptr;
    for (auto& known : *profile.mutable_classes()) {
      if (known.state_class() == driver.state_class) c = &known;
    }
    if (c == nullptr) c = profile.add_classes();
    c->set_state_class(driver.state_class);
    c->set_representation(driver.representation);
    c->clear_functions();
    for (const char* function : {"upload", "download", "follow"}) c->add_functions(function);
    if (driver.needs_barrier) c->add_functions("barrier");
    c->set_capacity(driver.capacity);
    c->clear_not_carried();
    for (const auto& field : driver.not_carried) c->add_not_carried(field);
  }
  list_transfers(profile.mutable_open_transfers());
}

template <typename List>
void Soa::Implementation::list_transfers(List* into) const {
  into->Clear();
  for (const auto& view : transfers()) *into->Add() = view.status;
}

void Soa::Implementation::say_status(SoaContext& context) const {
  list_transfers(context.step.messages.emplace_back().mutable_status()->mutable_open_transfers());
}

// ---- the master

void Soa::Implementation::on(SoaContext& context, soa_event::FromMaster& event) {
  using Message = if_m_a::v1::MasterMessage;
  Message& message = event.message;
  for (auto& [key, transfer] : sources_) transfer->renew_lease(config_, context.now);
  for (auto& [key, transfer] : destinations_) transfer->renew_lease(config_, context.now);
  switch (message.message_case()) {
    case Message::kAuthorized:
      if (authorized_ || !connected_) return;
      authorized_ = true;
      hello_due_ = context.now;
      return;
    case Message::kRefused:
      refused_ = true;
      authorized_ = registered_ = false;
      context.step.audit.push_back({{}, {}, "refused", message.refused().reason().substr(0, 512)});
      return;
    case Message::kRegistered: registered_ = connected_ && authorized_; return;
    case Message::kGetReady: return get_ready(context, message.get_ready());
    case Message::kUploadRequest: return upload_request(context, message.upload_request());
    case Message::kDownloadState:
      if (auto* t = destination(message.download_state().transfer()))
        t->on_chunk(context, message.download_state().chunk());
      return;
    case Message::kProgress:
      if (auto* t = source(message.progress().transfer())) t->on_progress(context, message.progress());
      return;
    case Message::kFinalize:
      if (auto* t = source(message.finalize().transfer())) return t->on_finalize(context, message.finalize());
      if (stale(message.finalize().transfer()))
        return reject(context, message.finalize().transfer(), TRANSFER_ROLE_SOURCE, common::v1::FINDING_STALE_EPOCH,
                      "");
      return say_status(context);
    case Message::kRelease: return release(context, message.release());
    case Message::kRollback: return rollback(context, message.rollback());
    case Message::kStatusRequest: return say_status(context);
    default: return;  // StateQuery is the shell's
  }
}

SourceTransfer* Soa::Implementation::source(const common::v1::TransferReference& reference) {
  const auto found = sources_.find(key_of(reference, TRANSFER_ROLE_SOURCE));
  if (found == sources_.end() || found->second->record().reference().epoch() != reference.epoch()) return nullptr;
  return found->second.get();
}

DestinationTransfer* Soa::Implementation::destination(const common::v1::TransferReference& reference) {
  const auto found = destinations_.find(key_of(reference, TRANSFER_ROLE_DESTINATION));
  if (found == destinations_.end() || found->second->record().reference().epoch() != reference.epoch()) return nullptr;
  return found->second.get();
}

bool Soa::Implementation::stale(const common::v1::TransferReference& reference) const {
  const auto known = epochs_.find(reference.subject_id());
  if (known == epochs_.end() || reference.epoch() > known->second.epoch()) return false;
  return reference.epoch() < known->second.epoch() || reference.migration_id() != known->second.migration_id();
}

void Soa::Implementation::reject(SoaContext& context, const common::v1::TransferReference& reference, TransferRole role,
                                 common::v1::FindingCode code, const std::string& detail) {
  auto& feedback = *context.step.messages.emplace_back().mutable_feedback();
  *feedback.mutable_transfer() = reference;
  feedback.set_stage(FEEDBACK_STAGE_FAILED);
  feedback.set_role(role);
  std::string text = detail;
  if (code == common::v1::FINDING_STALE_EPOCH) {
    const auto& known = epochs_.at(reference.subject_id());
    text = fmt::format("{} knows epoch {} of {} from {}; {} with epoch {} is refused", config_.host, known.epoch(),
                       reference.subject_id(), known.migration_id(), reference.migration_id().substr(0, 64),
                       reference.epoch());
  }
  *feedback.add_classes() = failed_class("", code, text);
  context.step.audit.push_back(
      {reference.migration_id().substr(0, 64), reference.subject_id().substr(0, 128), "refused", text});
}

void Soa::Implementation::raise_epoch(SoaContext& context, const common::v1::TransferReference& reference) {
  journal::EpochRecord& record = epochs_[reference.subject_id()];
  if (record.epoch() >= reference.epoch()) return;
  record.Clear();
  record.set_epoch(reference.epoch());
  record.set_migration_id(reference.migration_id());
  save_epoch(context, reference.subject_id());
}

// What a request for a new transfer must satisfy. False: it was answered.
template <typename Request>
bool Soa::Implementation::admit(SoaContext& context, const Request& request, TransferRole role) {
  const auto& reference = request.transfer();
  const auto refuse = [&](common::v1::FindingCode code, const std::string& detail) {
    reject(context, reference, role, code, detail);
    return false;
  };
  if (!well_formed(reference))
    return refuse(common::v1::FINDING_MALFORMED, "the reference of the transfer is malformed");
  if (stale(reference)) return refuse(common::v1::FINDING_STALE_EPOCH, "");
  if (answer_as_before(context, key_of(reference, role), reference.subject_id())) return false;
  std::string error = check_subject(request.subject());
  if (error.empty()) error = check_transfer(request.plan());
  const bool as_source = role == TRANSFER_ROLE_SOURCE;
  const std::string& host = as_source ? request.plan().source_host() : request.plan().destination_host();
  if (error.empty() && request.subject().id() != reference.subject_id()) error = "subject.id is not the reference's";
  if (error.empty() && request.plan().index() != reference.transfer()) error = "plan.index is not the reference's";
  if (error.empty() && host != config_.host) error = fmt::format("the plan names {}, this is {}", host, config_.host);
  if (error.empty() && request.classes_size() > 64) error = "more than 64 classes";
  if (!error.empty()) return refuse(common::v1::FINDING_MALFORMED, error);
  if (sources_.size() + destinations_.size() >= config_.max_open_transfers)
    return refuse(common::v1::FINDING_BUSY,
                  fmt::format("{} transfers are open, the limit is {}", sources_.size() + destinations_.size(),
                              config_.max_open_transfers));
  raise_epoch(context, reference);
  supersede(context, key_of(reference, role), reference,
            context_name(as_source ? request.plan().source_context() : request.plan().destination_context()));
  return true;
}

// A newer migration of the subject ends what an older one has open in the same context, in the same step.
void Soa::Implementation::supersede(SoaContext& context, const TransferKey& by,
                                    const common::v1::TransferReference& reference, const std::string& host_context) {
  inherited_.clear();
  const auto is_older = [&](const TransferBase& t, const std::string& its_context) {
    return t.record().reference().subject_id() == reference.subject_id() &&
           t.record().reference().epoch() < reference.epoch() && context_name(its_context) == host_context;
  };
  const auto drop = [&](const TransferBase& t) {
    context.step.journal.push_back({transfer_key(t.key()), std::nullopt});
    context.step.audit.push_back(
        {t.key().migration_id, reference.subject_id(), "superseded", "by " + reference.migration_id()});
  };
  std::erase_if(sources_, [&](const auto& entry) {
    const SourceTransfer& t = *entry.second;
    if (!is_older(t, t.record().plan().source_context())) return false;
    for (const auto& c : t.record().classes()) {
      const auto* profile = find_profile(config_, c.state_class());
      if (profile == nullptr) continue;
      if (profile->needs_barrier && t.barrier())
        context.step.calls.push_back({calls_.next++, c.state_class(), t.scope(), driver_call::LowerBarrier{}});
      context.step.calls.push_back({calls_.next++, c.state_class(), t.scope(), driver_call::Unfollow{}});
    }
    drop(t);
    return true;
  });
  std::erase_if(destinations_, [&](const auto& entry) {
    const DestinationTransfer& t = *entry.second;
    if (!is_older(t, t.record().plan().destination_context())) return false;
    if (by.role == TRANSFER_ROLE_DESTINATION) {
      for (auto& [name, keys] : t.ours()) inherited_[name].insert(keys.begin(), keys.end());
    }
    t.erase_keys(context);
    drop(t);
    return true;
  });
}

void Soa::Implementation::get_ready(SoaContext& context, const GetReady& request) {
  if (auto* known = destination(request.transfer())) return known->on_get_ready(context, request);
  if (!admit(context, request, TRANSFER_ROLE_DESTINATION)) return;
  journal::AgentTransfer record;
  *record.mutable_reference() = request.transfer();
  record.set_role(TRANSFER_ROLE_DESTINATION);
  record.set_state(TRANSFER_STATE_PREPARING);
  *record.mutable_subject() = request.subject();
  *record.mutable_plan() = request.plan();
  *record.mutable_classes() = request.classes();
  record.set_conflict_rule(request.conflict_rule());
  record.set_outcome(request.outcome());
  record.set_lease_ms(request.lease_ms());
  const TransferKey key = key_of(request.transfer(), TRANSFER_ROLE_DESTINATION);
  destinations_[key] = std::make_unique<DestinationTransfer>(context, std::move(record), std::exchange(inherited_, {}));
}

void Soa::Implementation::upload_request(SoaContext& context, const UploadRequest& request) {
  if (auto* known = source(request.transfer())) return known->on_upload_request(context, request);
  if (!admit(context, request, TRANSFER_ROLE_SOURCE)) return;
  constexpr std::uint64_t maximum_generation = 1ULL << 62;
  const auto& used = epochs_[request.transfer().subject_id()].generation();
  const auto before = used.find(request.transfer().transfer());
  journal::AgentTransfer record;
  *record.mutable_reference() = request.transfer();
  record.set_role(TRANSFER_ROLE_SOURCE);
  record.set_state(TRANSFER_STATE_FOLLOWING);
  *record.mutable_subject() = request.subject();
  *record.mutable_plan() = request.plan();
  *record.mutable_classes() = request.classes();
  record.set_conflict_rule(request.conflict_rule());
  record.set_outcome(request.outcome());
  record.set_generation(
      std::max(std::min(request.after_generation(), maximum_generation), before == used.end() ? 0 : before->second) +
      1);
  sources_[key_of(request.transfer(), TRANSFER_ROLE_SOURCE)] =
      std::make_unique<SourceTransfer>(context, std::move(record), false);
}

// ---- endings

void Soa::Implementation::remember(SoaContext& context, const common::v1::TransferReference& reference,
                                   const AgentMessage& answer) {
  journal::EpochRecord& record = epochs_[reference.subject_id()];
  if (record.epoch() != reference.epoch() || record.migration_id() != reference.migration_id() ||
      record.ended_size() >= 256)
    return;
  *record.add_ended() = answer;
  save_epoch(context, reference.subject_id());
}

bool Soa::Implementation::answer_as_before(SoaContext& context, const TransferKey& key, const std::string& subject) {
  const auto known = epochs_.find(subject);
  if (known == epochs_.end() || known->second.migration_id() != key.migration_id) return false;
  for (const auto& answer : known->second.ended()) {
    const bool released = answer.has_released();
    const auto& reference = released ? answer.released().transfer() : answer.rolled_back().transfer();
    const auto role = released ? answer.released().role() : answer.rolled_back().role();
    if (reference.transfer() != key.index || role != key.role) continue;
    context.step.messages.push_back(answer);
    return true;
  }
  return false;
}

template <typename Message>
void Soa::Implementation::answer_unknown(SoaContext& context, const common::v1::TransferReference& reference,
                                         TransferRole role, Message* (AgentMessage::*part)()) {
  AgentMessage answer;
  Message& unknown = *(answer.*part)();
  *unknown.mutable_transfer() = reference;
  unknown.set_role(role);
  unknown.set_unknown(true);
  if (well_formed(reference) && !stale(reference)) {  // a belated request must not begin it again
    raise_epoch(context, reference);
    remember(context, reference, answer);
  }
  context.step.messages.push_back(std::move(answer));
}

void Soa::Implementation::release(SoaContext& context, const Release& release) {
  const auto& reference = release.transfer();
  if (release.role() == TRANSFER_ROLE_SOURCE) {
    if (auto* t = source(reference)) return t->on_release(context, release);
  } else if (release.role() == TRANSFER_ROLE_DESTINATION) {
    if (auto* t = destination(reference)) return t->on_release(context, release);
  } else {
    return;
  }
  if (answer_as_before(context, key_of(reference, release.role()), reference.subject_id())) return;
  answer_unknown(context, reference, release.role(), &AgentMessage::mutable_released);
}

void Soa::Implementation::rollback(SoaContext& context, const Rollback& rollback) {
  const auto& reference = rollback.transfer();
  if (rollback.role() == TRANSFER_ROLE_SOURCE) {
    if (auto* t = source(reference)) return t->on_rollback(context);
  } else if (rollback.role() == TRANSFER_ROLE_DESTINATION) {
    if (auto* t = destination(reference)) return t->on_rollback(context);
  } else {
    return;
  }
  if (answer_as_before(context, key_of(reference, rollback.role()), reference.subject_id())) return;
  answer_unknown(context, reference, rollback.role(), &AgentMessage::mutable_rolled_back);
}

}  // namespace sami::protocol
