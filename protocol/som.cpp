#include "protocol/som.h"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/som_implementation.h"
#include "protocol/validation.h"

namespace sami::protocol {

namespace {

constexpr std::string_view migration_prefix = "migration/";
constexpr std::string_view subject_prefix = "subject/";

bool ends_with_name(const std::string& identity, std::string_view role, const std::string& name) {
  return identity.ends_with(fmt::format("/sami/{}/{}", role, name));
}

// The reference of a message about a transfer, and which side may say it.
struct About {
  const common::v1::TransferReference* reference = nullptr;
  std::optional<Side> side;  // nothing: Feedback, either may say it
};

Side side_of(if_m_a::v1::TransferRole role) {
  return role == if_m_a::v1::TRANSFER_ROLE_SOURCE ? Side::Source : Side::Destination;
}

About about(const if_m_a::v1::AgentMessage& m) {
  using if_m_a::v1::AgentMessage;
  switch (m.message_case()) {
    case AgentMessage::kReady: return {&m.ready().transfer(), Side::Destination};
    case AgentMessage::kUploadState: return {&m.upload_state().transfer(), Side::Source};
    case AgentMessage::kProgress: return {&m.progress().transfer(), Side::Destination};
    case AgentMessage::kFeedback: return {&m.feedback().transfer(), std::nullopt};
    case AgentMessage::kReleased: return {&m.released().transfer(), side_of(m.released().role())};
    case AgentMessage::kRolledBack: return {&m.rolled_back().transfer(), side_of(m.rolled_back().role())};
    case AgentMessage::kResync: return {&m.resync().transfer(), Side::Source};
    default: return {};
  }
}

}  // namespace

// ---- public

Som::Som(SomConfig config, const JournalImage& journal, Instant now)
    : implementation_(std::make_unique<Implementation>(std::move(config), journal, now)) {}
Som::~Som() = default;
Som::Som(Som&&) noexcept = default;
Som& Som::operator=(Som&&) noexcept = default;

void Som::set_wall(WallTime wall) { implementation_->wall_ = wall; }
void Som::set_classes(std::vector<common::v1::ClassRequirement> classes) {
  implementation_->config_.classes = std::move(classes);
}
SomStep Som::step(Instant now, SomEvent event) { return implementation_->step(now, std::move(event)); }
Instant Som::next_deadline() const { return implementation_->next_deadline(); }

std::vector<HostView> Som::hosts() const {
  std::map<std::string, HostView> views;
  for (const auto& [host, agent] : implementation_->peers_.agents)
    views[host] = {host, agent.connected, false, agent.profile};
  for (const auto& host : implementation_->drained_) {
    views[host].host = host;
    views[host].drained = true;
  }
  std::vector<HostView> all;
  for (auto& [host, view] : views) all.push_back(std::move(view));
  return all;
}

std::vector<SubjectView> Som::subjects() const {
  std::map<std::string, SubjectView> views;
  for (const auto& [id, record] : implementation_->subjects_) views[id].record = record;
  for (const auto& [id, run] : implementation_->runs_) {
    auto& view = views[run->record().subject().id()];
    view.subject = run->record().subject();
    view.tde = run->record().tde();
  }
  for (const auto& [id, place] : implementation_->inventory_) {
    auto& view = views[id];
    view.record.set_id(id);
    view.subject = place.subject;
    view.tde = place.tde;
  }
  std::vector<SubjectView> all;
  for (auto& [id, view] : views) all.push_back(std::move(view));
  return all;
}

std::vector<const journal::Migration*> Som::migrations() const {
  std::vector<const journal::Migration*> all;
  for (const auto& [id, run] : implementation_->runs_) all.push_back(&run->record());
  return all;
}

const journal::Migration* Som::find(const std::string& migration_id_) const {
  const auto found = implementation_->runs_.find(migration_id_);
  return found == implementation_->runs_.end() ? nullptr : &found->second->record();
}

// ---- life

Som::Implementation::Implementation(SomConfig config, const JournalImage& journal, Instant now)
    : config_(std::move(config)), now_(now) {
  for (const auto& [key, value] : journal) {
    if (key == "som") {
      journal::SomRecord record;
      if (!record.ParseFromString(value)) continue;
      next_migration_ = std::max<std::uint64_t>(1, record.next_migration());
      drained_.insert(record.drained().begin(), record.drained().end());
    } else if (key.starts_with(subject_prefix)) {
      journal::SubjectRecord record;
      if (record.ParseFromString(value)) subjects_[record.id()] = record;
    } else if (key.starts_with(migration_prefix)) {
      journal::Migration record;
      if (!record.ParseFromString(value)) continue;
      auto run = std::make_unique<MigrationRun>(record, now);
      run->take_dirty();
      notified_[{record.tde(), record.notification_id()}] = record.id();
      for (const auto& alias : record.aliases()) notified_[{alias.tde(), alias.notification_id()}] = record.id();
      if (run->settled())
        settled_.push_back(record.id());
      else
        active_.insert(record.id());
      runs_[record.id()] = std::move(run);
    }
  }
  for (auto& [id, subject] : subjects_) {
    if (!runs_.contains(subject.open_migration())) subject.clear_open_migration();
  }
  if (!active_.empty()) heartbeat_at_ = now;
}

SomStep Som::Implementation::step(Instant now, SomEvent event) {
  SomStep step;
  step_ = &step;
  now_ = now;
  std::visit([this](const auto& e) { on(e); }, event);
  if (now_ >= heartbeat_at_) send_heartbeats();
  save();
  step_ = nullptr;
  std::sort(step.changed.begin(), step.changed.end());
  step.changed.erase(std::unique(step.changed.begin(), step.changed.end()), step.changed.end());
  return step;
}

Instant Som::Implementation::next_deadline() const {
  Instant next = heartbeat_at_;
  for (const auto& id : active_) next = std::min(next, runs_.at(id)->next_deadline());
  return next;
}

void Som::Implementation::on(const som_event::Tick&) {
  const std::vector<std::string> active(active_.begin(), active_.end());
  for (const auto& id : active) {
    if (MigrationRun& run = *runs_.at(id); run.next_deadline() <= now_) drive(run);
  }
}

// Any word from the master renews the leases.
void Som::Implementation::send_heartbeats() {
  std::set<std::string> hosts;
  for (const auto& id : active_) {
    for (const auto& t : runs_.at(id)->record().transfers()) {
      for (const std::string& host : {t.plan().source_host(), t.plan().destination_host()}) {
        if (peers_.registered(host)) hosts.insert(host);
      }
    }
  }
  for (const auto& host : hosts) {
    step_->to_agents.push_back({host, {}});
    step_->to_agents.back().message.mutable_status_request();
  }
  const Duration interval = std::chrono::milliseconds(std::max<std::uint32_t>(1, config_.heartbeat_interval_ms));
  heartbeat_at_ = active_.empty() ? Instant::never() : now_ + interval;
}

void Som::Implementation::drive(MigrationRun& run) {
  const bool was_final = run.final();
  auto c = context();
  run.drive(c);
  touched_.insert(run.id());
  if (run.final() && !was_final) finish(run);
  if (run.final()) {
    update_holders(run);
    if (run.settled() && active_.erase(run.id()) > 0) {
      settled_.push_back(run.id());
      prune();
    }
  }
}

void Som::Implementation::finish(MigrationRun& run) {
  journal::SubjectRecord& subject = subjects_[run.record().subject().id()];
  subject.clear_open_migration();
  subject.set_place(run.record().state() == journal::ROLLED_BACK ? run.record().source_place()
                                                                 : run.record().destination_place());
  step_->journal.push_back({std::string(subject_prefix) + subject.id(), subject.SerializeAsString()});
}

// Hosts that may still hold the subject's state besides the present path's.
void Som::Implementation::update_holders(const MigrationRun& run) {
  if (run.record().state() == journal::ROLLED_BACK) return;
  journal::SubjectRecord& subject = subjects_[run.record().subject().id()];
  const std::string before = subject.SerializeAsString();
  const auto remove = [&](const std::string& host, const std::string& context) {
    auto& holders = *subject.mutable_holders();
    holders.erase(std::remove_if(holders.begin(), holders.end(),
                                 [&](const auto& h) {
                                   return h.host() == host && context_name(h.context()) == context_name(context);
                                 }),
                  holders.end());
  };
  const bool newest = subject.epoch() == run.record().epoch();
  const auto keeps_another = [&](const common::v1::Transfer& plan) {
    return std::any_of(run.record().transfers().begin(), run.record().transfers().end(), [&](const auto& t) {
      return t.source_keeps() && t.plan().source_host() == plan.source_host() &&
             context_name(t.plan().source_context()) == context_name(plan.source_context());
    });
  };
  std::vector<const journal::TransferProgress*> keeping;  // several transfers may leave the same host and context
  for (const auto& t : run.record().transfers()) {
    if (is_retained(t.plan()) || t.plan().disposition() != common::v1::DISPOSITION_MOVE) continue;
    if (!newest && !t.source_released()) continue;
    const bool holds = !t.source_released() || t.source_keeps();
    if (newest || (!holds && !keeps_another(t.plan()))) remove(t.plan().source_host(), t.plan().source_context());
    if (newest) remove(t.plan().destination_host(), t.plan().destination_context());
    if (newest && holds) keeping.push_back(&t);
  }
  for (const auto* t : keeping) {
    if (subject.holders_size() >= 64) break;
    auto* holder = subject.add_holders();
    holder->set_host(t->plan().source_host());
    holder->set_context(t->plan().source_context());
    *holder->mutable_transfer() = t->plan();
  }
  if (subject.SerializeAsString() != before)
    step_->journal.push_back({std::string(subject_prefix) + subject.id(), subject.SerializeAsString()});
}

void Som::Implementation::prune() {
  while (settled_.size() > config_.keep_ended) {
    const auto& record = runs_.at(settled_.front())->record();
    notified_.erase({record.tde(), record.notification_id()});
    for (const auto& alias : record.aliases()) notified_.erase({alias.tde(), alias.notification_id()});
    step_->journal.push_back({std::string(migration_prefix) + settled_.front(), std::nullopt});
    touched_.erase(settled_.front());
    runs_.erase(settled_.front());
    settled_.pop_front();
  }
}

void Som::Implementation::save() {
  for (const auto& id : touched_) {
    const auto run = runs_.find(id);
    if (run == runs_.end() || !run->second->take_dirty()) continue;
    step_->journal.push_back({std::string(migration_prefix) + id, run->second->record().SerializeAsString()});
  }
  touched_.clear();
}

void Som::Implementation::save_som() {
  journal::SomRecord record;
  record.set_next_migration(next_migration_);
  for (const auto& host : drained_) record.add_drained(host);
  step_->journal.push_back({"som", record.SerializeAsString()});
}

// A peer can provoke these: at most ten in ten seconds.
void Som::Implementation::ignored(const std::string& who, const std::string& why) {
  constexpr Duration window = std::chrono::seconds(10);
  if (now_ >= complaint_window_) {
    complaint_window_ = now_ + window;
    complaints_ = 0;
  }
  if (++complaints_ <= 10)
    step_->audit.push_back({{}, {}, "refused", fmt::format("a message of {}: {}", who, why.substr(0, 512))});
}

MigrationRun* Som::Implementation::find_run(const std::string& id) {
  const auto found = runs_.find(id);
  return found == runs_.end() ? nullptr : found->second.get();
}

// ---- agents

void Som::Implementation::on(const som_event::AgentConnected& event) {
  peers_.agents[event.host].connected = true;
  peers_.agents[event.host].authorized = peers_.agents[event.host].registered = false;
}

void Som::Implementation::on(const som_event::AgentDisconnected& event) {
  AgentSession& agent = peers_.agents[event.host];
  agent.connected = agent.authorized = agent.registered = false;
}

void Som::Implementation::on(const som_event::FromAgent& event) {
  using if_m_a::v1::AgentMessage;
  AgentSession& agent = peers_.agents[event.host];
  if (!agent.connected) return;
  switch (event.message.message_case()) {
    case AgentMessage::kAuthorize: return authorize(event.host, event.message.authorize());
    case AgentMessage::kRegister:
      if (!agent.authorized) return ignored(event.host, "Register before Authorize");
      return register_agent(event.host, event.message.register_());
    case AgentMessage::kStateReply: return;  // the shell's
    case AgentMessage::MESSAGE_NOT_SET: return ignored(event.host, "it is empty, or of a newer version");
    default: break;
  }
  if (!agent.registered) return ignored(event.host, "it has not registered yet");
  if (event.message.message_case() == AgentMessage::kStatus)
    return take_list(event.host, event.message.status().open_transfers());
  transfer_message(event.host, event.message);
}

void Som::Implementation::authorize(const std::string& host, const if_m_a::v1::Authorize& authorize) {
  step_->to_agents.push_back({host, {}});
  auto& answer = step_->to_agents.back().message;
  if (!ends_with_name(authorize.identity(), "soa", host)) {
    answer.mutable_refused()->set_reason(fmt::format("identity is '{}', expected spiffe://<domain>/sami/soa/{}",
                                                     authorize.identity().substr(0, 256), host));
    return ignored(host, answer.refused().reason());
  }
  std::uint32_t version = 0;
  for (const auto known : config_.protocol_versions) {
    if (std::count(authorize.protocol_versions().begin(), authorize.protocol_versions().end(), known) > 0)
      version = std::max(version, known);
  }
  if (version == 0) {
    answer.mutable_refused()->set_reason(fmt::format("no common protocol version: {} offered, the master knows {}",
                                                     fmt::join(authorize.protocol_versions(), ", "),
                                                     fmt::join(config_.protocol_versions, ", ")));
    return ignored(host, answer.refused().reason());
  }
  answer.mutable_authorized()->set_protocol_version(version);
  answer.mutable_authorized()->set_master_identity(config_.identity);
  answer.mutable_authorized()->set_heartbeat_interval_ms(config_.heartbeat_interval_ms);
  peers_.agents[host].authorized = true;
}

void Som::Implementation::register_agent(const std::string& host, const if_m_a::v1::Register& profile) {
  if (profile.host() != host)
    return ignored(host, fmt::format("Register.host is '{}', expected '{}'", profile.host().substr(0, 128), host));
  AgentSession& agent = peers_.agents[host];
  const bool first = !std::exchange(agent.registered, true);
  agent.profile = profile;
  agent.profile.clear_open_transfers();
  step_->to_agents.push_back({host, {}});
  step_->to_agents.back().message.mutable_registered()->set_host(host);
  if (first)
    step_->audit.push_back(
        {{}, {}, "registration", fmt::format("{} registered with {} state classes", host, profile.classes_size())});
  if (first) {
    for (const auto& id : active_) runs_.at(id)->agent_registered(host);
  }
  take_list(host, profile.open_transfers());
}

void Som::Implementation::take_list(const std::string& host,
                                    const google::protobuf::RepeatedPtrField<if_m_a::v1::TransferStatus>& open) {
  for (const auto& status : open) {
    if (!runs_.contains(status.transfer().migration_id()))
      ignored(host, fmt::format("it has a transfer of {} open, which is not known here; it is left alone",
                                status.transfer().migration_id().substr(0, 128)));
  }
  const std::vector<std::string> active(active_.begin(), active_.end());
  auto c = context();
  for (const auto& id : active) {
    MigrationRun& run = *runs_.at(id);
    const auto& transfers = run.record().transfers();
    if (std::none_of(transfers.begin(), transfers.end(), [&](const auto& t) {
          return t.plan().source_host() == host || t.plan().destination_host() == host;
        }))
      continue;
    run.agent_lists(c, host, open);
    drive(run);
  }
}

void Som::Implementation::transfer_message(const std::string& host, const if_m_a::v1::AgentMessage& message) {
  const About what = about(message);
  if (what.reference == nullptr) return;
  const auto& reference = *what.reference;
  MigrationRun* run = find_run(reference.migration_id());
  if (run == nullptr)
    return ignored(host, "it is about an unknown migration " + reference.migration_id().substr(0, 128));
  journal::TransferProgress* transfer = run->transfer(reference.transfer());
  if (transfer == nullptr || reference.epoch() != run->record().epoch())
    return ignored(
        host, fmt::format("{} has no transfer {} with epoch {}", run->id(), reference.transfer(), reference.epoch()));
  const bool source = transfer->plan().source_host() == host;
  const bool destination = transfer->plan().destination_host() == host;
  Side side = destination ? Side::Destination : Side::Source;
  if (what.side.has_value())
    side = *what.side;
  else if (message.feedback().role() == if_m_a::v1::TRANSFER_ROLE_SOURCE)
    side = Side::Source;
  if (side == Side::Source ? !source : !destination)
    return ignored(host, fmt::format("it is not the {} of transfer {} of {}",
                                     side == Side::Source ? "source" : "destination", reference.transfer(), run->id()));
  auto c = context();
  run->from_agent(c, side, *transfer, message);
  touched_.insert(run->id());
  if (message.message_case() != if_m_a::v1::AgentMessage::kUploadState) drive(*run);
}

// ---- operator

void Som::Implementation::on(const som_event::Abort& event) {
  MigrationRun* run = find_run(event.migration_id);
  if (run == nullptr) return reply(event.id, fmt::format("there is no migration {}", event.migration_id));
  auto c = context();
  reply(event.id, run->abort(c, event.actor, event.reason));
  drive(*run);
}

void Som::Implementation::on(const som_event::Resolve& event) {
  MigrationRun* run = find_run(event.migration_id);
  if (run == nullptr) return reply(event.id, fmt::format("there is no migration {}", event.migration_id));
  auto c = context();
  reply(event.id, run->resolve(c, event.outcome, event.actor));
  drive(*run);
}

void Som::Implementation::on(const som_event::Force& event) {
  MigrationRun* run = find_run(event.migration_id);
  if (run == nullptr) return reply(event.id, fmt::format("there is no migration {}", event.migration_id));
  auto c = context();
  reply(event.id, run->force(c, event.actor));
  drive(*run);
}

void Som::Implementation::on(const som_event::Drain& event) {
  if (!peers_.agents.contains(event.host) && !drained_.contains(event.host))
    return reply(event.id,
                 fmt::format("there is no State Host {}: it has not registered since the master started", event.host));
  if (event.on)
    drained_.insert(event.host);
  else
    drained_.erase(event.host);
  save_som();
  step_->audit.push_back(
      {{}, {}, "operator", fmt::format("{} {} by {}", event.host, event.on ? "drained" : "taken back", event.actor)});
  reply(event.id, {});
}

}  // namespace sami::protocol
