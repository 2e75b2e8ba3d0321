#include "som/shell.h"

#include <fmt/format.h>

#include <algorithm>

namespace sami::som {
namespace {

// A chunk for a peer that does not keep up is left out: its source sends it again (go-back-N).
constexpr std::size_t kQueueWatermark = 8 << 20;
constexpr Duration kFirstBackoff = std::chrono::milliseconds(100);
constexpr Duration kLastBackoff = std::chrono::seconds(10);

bool mentions_operator(const std::vector<protocol::AuditEntry>& entries) {
  return std::any_of(entries.begin(), entries.end(), [](const auto& entry) { return entry.event == "operator"; });
}

}  // namespace

Shell::Shell(Settings settings, Loop& loop, Journal& journal, AuditTrail& audit, const Clock& clock, Log log)
    : settings_(std::move(settings)),
      loop_(loop),
      journal_(journal),
      audit_(audit),
      clock_(clock),
      log_(std::move(log)),
      access_(settings_.tdes, settings_.agents),
      backoff_(kFirstBackoff) {}

Shell::~Shell() {
  loop_.cancel(tick_);
  loop_.cancel(rebuild_timer_);
}

Result<void> Shell::start() { return rebuild(); }

void Shell::reload(const Settings& settings) {
  settings_.tdes = settings.tdes;
  settings_.agents = settings.agents;
  settings_.machine.classes = settings.machine.classes;
  settings_.log_level = settings.log_level;
  access_ = Access(settings_.tdes, settings_.agents);
  if (machine_) machine_->set_classes(settings_.machine.classes);
  const auto agents = agents_.all();
  for (const auto& [name, entry] : agents)
    if (auto refusal = access_.agent(entry.session->peer())) drop_agent(name, *refusal);
  const auto tdes = tdes_.all();
  for (const auto& [name, entry] : tdes)
    if (auto refusal = access_.tde(entry.session->peer())) drop_tde(name, *refusal);
}

Answer<void> Shell::command(std::uint64_t id, protocol::SomEvent event, const std::string& actor,
                            const std::string& what, const std::string& migration_id) {
  const auto step = feed(std::move(event));
  std::string error = "the master's journal cannot be written: " + last_error_;
  ProblemKind kind = ProblemKind::Unavailable;
  if (step) {
    const auto& replies = step->replies;
    const auto reply = std::find_if(replies.begin(), replies.end(), [&](const auto& each) { return each.id == id; });
    error = reply == replies.end() ? "the master gave no answer" : reply->error;
    kind = ProblemKind::FailedPrecondition;
  }
  if (!error.empty())
    audit_.add("operator", fmt::format("{}: {}: refused: {}", actor, what, error), migration_id);
  else if (!mentions_operator(step->audit))
    audit_.add("operator", fmt::format("{}: {}", actor, what), migration_id);
  if (!error.empty()) return problem(kind, error);
  return {};
}

std::optional<protocol::SomStep> Shell::feed(protocol::SomEvent event) {
  if (!machine_) return std::nullopt;
  machine_->set_wall(clock_.wall());
  protocol::SomStep step = machine_->step(loop_.now(), std::move(event));
  if (!commit(step.journal)) return std::nullopt;
  audit_.add(step.audit);
  deliver(step);
  arm();
  return step;
}

bool Shell::commit(const std::vector<JournalWrite>& writes) {
  if (writes.empty()) return true;
  if (auto committed = journal_.commit(writes); !committed) {
    crash(committed.error());
    return false;
  }
  ++counters_.journal_commits;
  backoff_ = kFirstBackoff;
  return true;
}

void Shell::deliver(const protocol::SomStep& step) {
  std::vector<std::pair<std::string, std::string>> refused_agents, refused_tdes;
  for (const auto& [host, message] : step.to_agents) {
    auto* session = agents_.find(host);
    if (session == nullptr) continue;
    if (message.has_download_state() && session->queued_bytes() > kQueueWatermark) {
      ++counters_.chunks_left_out;
      continue;
    }
    session->send(message);
    if (message.has_download_state()) {
      ++counters_.chunks_relayed;
      counters_.bytes_relayed += message.download_state().chunk().size();
    }
    if (message.has_refused()) refused_agents.emplace_back(host, message.refused().reason());
  }
  for (const auto& [tde, message] : step.to_tdes) {
    send_to_tde(tde, message);
    if (message.has_refused()) refused_tdes.emplace_back(tde, message.refused().reason());
  }
  count_changes(step.changed);
  if (observer_ != nullptr) {
    for (const auto& id : step.changed) observer_->on_changed(id);
    for (const auto& [tde, message] : step.to_tdes)
      if (message.has_notify_acknowledged() && !message.notify_acknowledged().accepted())
        observer_->on_announcement_refused(tde, message.notify_acknowledged().notification_id(),
                                           message.notify_acknowledged().reason());
  }
  for (const auto& [host, reason] : refused_agents) {
    note_refused("soa/" + host, reason);
    drop_agent(host, reason);
  }
  for (const auto& [tde, reason] : refused_tdes) {
    note_refused("tde/" + tde, reason);
    drop_tde(tde, reason);
  }
}

void Shell::count_changes(const std::vector<std::string>& changed) {
  for (const auto& id : changed) {
    const auto* migration = machine_->find(id);
    if (migration == nullptr) continue;
    auto& last = last_state_[id];
    if (protocol::is_final(migration->state()) && last != migration->state()) {
      if (migration->state() == protocol::journal::DONE) ++counters_.migrations_done;
      if (migration->state() == protocol::journal::DONE_WITH_LOSS) ++counters_.migrations_done_with_loss;
      if (migration->state() == protocol::journal::ROLLED_BACK) ++counters_.migrations_rolled_back;
    }
    last = migration->state();
  }
  if (last_state_.size() <= settings_.machine.keep_ended + settings_.machine.max_migrations) return;
  for (auto it = last_state_.begin(); it != last_state_.end();)
    it = machine_->find(it->first) == nullptr ? last_state_.erase(it) : std::next(it);
}

void Shell::crash(const Error& error) {
  ++counters_.journal_failures;
  last_error_ = error.message;
  log_.error("the journal cannot be written (is the disk full?); every session is closed and the master starts again "
             "from what was journaled", {Field(error), {"folder", settings_.state_folder}});
  machine_.reset();
  arm();
  const std::string reason = "the master's journal cannot be written; it starts again from it";
  const auto agents = agents_.all();
  const auto tdes = tdes_.all();
  agents_.close_all(reason);
  tdes_.close_all(reason);
  if (observer_ != nullptr) {
    for (const auto& [name, entry] : agents) observer_->on_agent_gone(name);
    for (const auto& [name, entry] : tdes) observer_->on_tde_gone(name);
  }
  rebuild_later();
}

void Shell::rebuild_later() {
  loop_.cancel(rebuild_timer_);
  rebuild_timer_ = loop_.call_after(backoff_, [this] {
    rebuild_timer_ = 0;
    if (auto rebuilt = rebuild(); !rebuilt) {
      last_error_ = rebuilt.error().message;
      log_.error("the journal cannot be read; trying again", {Field(rebuilt.error())});
      rebuild_later();
      return;
    }
    log_.info("the master runs again from its journal", {{"migrations", machine_->migrations().size()}});
    if (observer_ != nullptr) observer_->on_restarted();
  });
  backoff_ = std::min(backoff_ * 2, kLastBackoff);
}

Result<void> Shell::rebuild() {
  auto image = journal_.load();
  if (!image) return tl::unexpected<Error>(image.error());
  machine_.emplace(settings_.machine, *image, loop_.now());
  last_state_.clear();
  for (const auto* migration : machine_->migrations()) last_state_[migration->id()] = migration->state();
  arm();
  return {};
}

void Shell::arm() {
  const Instant at = machine_ ? machine_->next_deadline() : Instant::never();
  if (at == tick_at_) return;
  loop_.cancel(tick_);
  tick_at_ = at;
  tick_ = loop_.call_at(at, [this] {
    tick_ = 0;
    tick_at_ = Instant::never();
    feed(protocol::som_event::Tick{});
  });
}

}  // namespace sami::som
