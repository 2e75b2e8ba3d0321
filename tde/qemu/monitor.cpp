#include "tde/qemu/monitor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace sami::tde::qemu {

using Command = MonitorCommand::Kind;
using Report = MonitorReport::Kind;

namespace {

constexpr Duration kAskAgain = std::chrono::milliseconds(200);
constexpr Duration kFindDestination = std::chrono::milliseconds(20);
constexpr Duration kMovedAgain = std::chrono::seconds(5);
constexpr std::int64_t kQemusOwnBandwidth = 128 * 1024 * 1024;  // DEFAULT_MIGRATE_MAX_BANDWIDTH

// As a source: it has begun, and can still end either way.
bool under_way(Migration status) {
  return status == Migration::Setup || status == Migration::Active || status == Migration::PreSwitchover ||
         status == Migration::Device;
}

}  // namespace

RunState run_state(std::string_view status) {
  if (status == "running") return RunState::Running;
  if (status == "inmigrate") return RunState::InMigrate;
  if (status == "postmigrate") return RunState::PostMigrate;
  return status.empty() ? RunState::Unknown : RunState::Stopped;
}

Migration migration(std::string_view status) {
  constexpr std::array<std::pair<std::string_view, Migration>, 9> kNames{{{"", Migration::None},
                                                                          {"none", Migration::None},
                                                                          {"setup", Migration::Setup},
                                                                          {"pre-switchover", Migration::PreSwitchover},
                                                                          {"device", Migration::Device},
                                                                          {"completed", Migration::Completed},
                                                                          {"cancelling", Migration::Cancelling},
                                                                          {"cancelled", Migration::Cancelled},
                                                                          {"failed", Migration::Failed}}};
  for (const auto& [name, value] : kNames) {
    if (name == status) return value;
  }
  return Migration::Active;
}

std::string to_string(const MonitorCommand& command) {
  static constexpr std::array<std::string_view, 8> kNames{"connect",
                                                          "migrate-set-capabilities",
                                                          "query-status",
                                                          "query-migrate",
                                                          "query-migrate-parameters",
                                                          "migrate-set-parameters",
                                                          "migrate-continue",
                                                          "migrate_cancel"};
  return fmt::format("{} at {}", kNames.at(static_cast<std::size_t>(command.kind)), command.server);
}

Monitor::Monitor(MonitorConfig config) : config_(std::move(config)) {
  for (const auto& server : config_.servers) ends_[server];
}

MonitorStep Monitor::step(Instant now, const std::string& place, const MonitorEvent& event) {
  MonitorStep step;
  step_ = &step;
  now_ = now;
  std::visit([this](const auto& one) { on(one); }, event);
  look(place);
  step_ = nullptr;
  return step;
}

Instant Monitor::next_deadline() const {
  if (!move_) return Instant::never();
  Instant next = move_->poll_at;
  if (move_->paused_at != Instant::never() && !move_->go_on && !move_->cancel) {
    next = std::min(next, move_->paused_at + config_.paused_deadline);
  }
  if (!move_->announced && !move_->asked_to_announce && !move_->let_go && !move_->cancel) {
    next = std::min(next, move_->announce_at);
  }
  return next;
}

const Monitor::End& Monitor::end_of(const std::string& server) const {
  static const End nothing;
  const auto found = ends_.find(server);
  return found == ends_.end() ? nothing : found->second;
}

void Monitor::tell(Command kind, const std::string& server, std::int64_t value) {
  step_->commands.push_back({kind, server, value});
}

// ---- what the monitors of QEMU say

void Monitor::on(const monitor_event::Connected& event) {
  ends_[event.server] = {Presence::Present, RunState::Unknown, Migration::Unknown};
  for (const auto command : {Command::Prepare, Command::ReadStatus, Command::ReadMigration}) {
    tell(command, event.server);
  }
  if (!move_ || event.server != move_->source) return;
  move_->continue_sent = move_->cancel_sent = false;  // the answer may have been lost, or the command
  move_->hold_again = true;
}

void Monitor::on(const monitor_event::Disconnected& event) {
  ends_[event.server] = {Presence::Absent, RunState::Unknown, Migration::Unknown};
  if (!move_ || event.server != move_->destination || move_->go_on) return;
  note(fmt::format("the QEMU at the destination {} is gone: back to {}", event.server, move_->source));
  move_->cancel = true;
}

// What arrived has no incoming migration any more, though the event that says so comes after RESUME.
void Monitor::runs(const std::string& server, RunState state) {
  End& end = ends_[server];
  if (end.run == RunState::InMigrate && state == RunState::Running) end.migration = Migration::Completed;
  end.run = state;
}

void Monitor::on(const monitor_event::BandwidthRead& event) {
  if (!move_ || event.server != move_->source || event.octets_per_second <= config_.precopy_bandwidth) return;
  move_->bandwidth = event.octets_per_second;
}

void Monitor::on(const monitor_event::MigrationChanged& event) {
  End& end = ends_[event.server];
  end.migration = event.status;
  if (end.run == RunState::InMigrate && event.status == Migration::Completed) end.run = RunState::Stopped;
}

void Monitor::on(const monitor_event::Refused& event) {
  note(fmt::format("{} refused {}: {}", event.server, event.command, event.reason));
  if (!move_ || event.server != move_->source) return;
  move_->poll_at = std::min(move_->poll_at, now_ + kAskAgain);
}

// ---- what the gate says

void Monitor::on(const monitor_event::Announced&) {
  if (move_) move_->announced = true;
}

void Monitor::on(const monitor_event::NotAnnounced& event) {
  if (!move_) return;
  using Why = monitor_event::NotAnnounced::Why;
  move_->asked_to_announce = false;
  if (event.why == Why::NotNow) {
    move_->announce_at = now_ + kAskAgain;
    return;
  }
  move_->announced = false;
  if (event.why == Why::Refused) return apply_policy("not announced: " + event.reason);
  note("nothing is to be moved: " + event.reason);
  move_->let_go = true;
}

void Monitor::on(const monitor_event::Adopted& event) {
  move_.emplace(Move{});
  move_->source = event.source;
  move_->destination = event.destination;
  move_->asked_to_announce = move_->announced = true;
  move_->held = true;  // as this process's predecessor did
  move_->poll_at = now_ + config_.poll_interval;
}

void Monitor::on(const monitor_event::Told& event) {
  using Kind = protocol::HypervisorInstruction::Kind;
  if (!move_) return;
  switch (event.what) {
    case Kind::MayPause: move_->may_pause = true; return;
    case Kind::Continue: move_->go_on = true; return;
    case Kind::Cancel: move_->cancel = !move_->go_on; return;
    case Kind::FindOut: move_->paused_reported = false; return;
    case Kind::Refused: move_->announced = false; return apply_policy("the announcement was refused");
    case Kind::Concluded: return;
  }
}

void Monitor::apply_policy(const std::string& why) {
  const bool go_on = config_.no_verdict == protocol::NoVerdictPolicy::Continue;
  note(fmt::format("{}; the policy is to {}", why, go_on ? "continue" : "cancel"));
  move_->let_go = go_on;
  move_->cancel = !go_on;
}

// ---- what follows from it

void Monitor::look(const std::string& place) {
  if (!move_) find_source();
  if (!move_) return notice_moved(place);
  if (move_->destination.empty()) find_destination();
  if (conclude()) {
    move_.reset();
    return;
  }
  drive();
}

void Monitor::find_source() {
  for (const auto& [server, end] : ends_) {
    const bool outgoing = end.run == RunState::Running || end.run == RunState::Stopped;
    if (!outgoing || !under_way(end.migration)) continue;
    move_.emplace(Move{});
    move_->source = server;
    move_->poll_at = now_ + config_.poll_interval;
    note(fmt::format("a migration of {} from {} begins", config_.subject_id, server));
    return;
  }
}

void Monitor::find_destination() {
  std::vector<std::string> waiting;
  std::vector<std::string> active;
  for (const auto& [server, end] : ends_) {
    if (server == move_->source || end.run != RunState::InMigrate) continue;
    waiting.push_back(server);
    if (end.migration == Migration::Active) active.push_back(server);
  }
  const auto& candidates = active.empty() ? waiting : active;
  if (candidates.size() == 1) {
    move_->destination = candidates.front();
    move_->announce_at = now_;
    return;
  }
  if (now_ < move_->announce_at) return;  // asked a moment ago: each answer is a step of its own
  // A destination that was started a moment ago is connected to at once, and asked.
  move_->announce_at = now_ + kFindDestination;
  for (const auto& [server, end] : ends_) {
    if (server == move_->source) continue;
    if (end.presence != Presence::Present) tell(Command::Connect, server);
    if (end.run == RunState::InMigrate) tell(Command::ReadMigration, server);
  }
}

// True when the move is over.
bool Monitor::conclude() {
  const End& source = end_of(move_->source);
  const End& destination = end_of(move_->destination);
  const bool arrived = destination.run == RunState::Running || destination.migration == Migration::Completed;
  move_->begun = move_->begun || under_way(source.migration);
  const bool another = move_->begun && source.run == RunState::Running && source.migration == Migration::None;
  const bool came_back = source.migration == Migration::Cancelled || source.migration == Migration::Failed || another;
  if (!move_->destination.empty() && arrived) {
    step_->reports.push_back({Report::AtDestination, move_->destination, ""});
    expect_at(move_->destination);
    ends_[move_->source].run = RunState::PostMigrate;  // should it not have said so yet
    ends_[move_->source].migration = Migration::Completed;
    return true;
  }
  if (!came_back) return false;
  if (move_->announced) step_->reports.push_back({Report::AtSource, "", ""});
  expect_at(move_->source);
  restore();
  return true;
}

void Monitor::drive() {
  const End& source = end_of(move_->source);
  const bool moving = under_way(source.migration);
  if (moving && !move_->announced && !move_->asked_to_announce && !move_->let_go && !move_->cancel &&
      !move_->destination.empty() && move_->announce_at <= now_) {
    move_->asked_to_announce = true;
    step_->reports.push_back({Report::Announced, move_->destination, ""});
  }
  if (source.migration == Migration::PreSwitchover) {
    if (move_->paused_at == Instant::never()) move_->paused_at = now_;
    if (move_->announced && !move_->paused_reported) {
      move_->paused_reported = true;
      step_->reports.push_back({Report::Paused, "", ""});
    }
  }
  const bool decided = move_->go_on || move_->cancel || move_->let_go;
  if (!decided && move_->paused_at != Instant::never() && now_ - move_->paused_at >= config_.paused_deadline) {
    apply_policy("the VM is paused, and nothing was said in time");
  }
  steer(source);
  if (move_->poll_at <= now_) poll();
}

void Monitor::steer(const End& source) {
  const bool copying = source.migration == Migration::Setup || source.migration == Migration::Active;
  const bool wait = !move_->may_pause && !move_->let_go && !move_->cancel && !move_->go_on;
  if (copying && wait && (!move_->held || std::exchange(move_->hold_again, false))) hold();
  if (!wait) restore();
  if (move_->cancel && under_way(source.migration) && !std::exchange(move_->cancel_sent, true)) {
    tell(Command::Cancel, move_->source);
  }
  const bool go_on = (move_->go_on || move_->let_go) && !move_->cancel;
  if (go_on && source.migration == Migration::PreSwitchover && !std::exchange(move_->continue_sent, true)) {
    tell(Command::Continue, move_->source);
  }
}

void Monitor::hold() {
  move_->held = true;
  tell(Command::ReadBandwidth, move_->source);
  tell(Command::SetBandwidth, move_->source, config_.precopy_bandwidth);
}

void Monitor::restore() {
  if (!std::exchange(move_->held, false)) return;
  const std::int64_t before = move_->bandwidth != 0 ? move_->bandwidth : kQemusOwnBandwidth;
  tell(Command::SetBandwidth, move_->source, config_.full_bandwidth != 0 ? config_.full_bandwidth : before);
}

// In case an event was lost with its connection, or a command was refused.
void Monitor::poll() {
  move_->poll_at = now_ + config_.poll_interval;
  move_->continue_sent = move_->cancel_sent = false;
  for (const auto& server : {move_->source, move_->destination}) {
    if (end_of(server).presence != Presence::Present) continue;
    tell(Command::ReadStatus, server);
    tell(Command::ReadMigration, server);
  }
}

// The topology hears of it within this time.
void Monitor::expect_at(const std::string& server) {
  moved_to_ = server;
  moved_again_at_ = now_ + kMovedAgain;
}

// No move is known, and yet it runs elsewhere: noticed afterwards.
void Monitor::notice_moved(const std::string& place) {
  std::string running;
  for (const auto& [server, end] : ends_) {
    if (end.presence == Presence::Unknown) return;
    if (end.presence == Presence::Present && end.run == RunState::Unknown) return;
    if (end.run != RunState::Running) continue;
    if (!running.empty()) return;
    running = server;
  }
  if (running.empty() || place.empty() || running == place || !ends_.contains(place)) return;
  if (running == moved_to_ && now_ < moved_again_at_) return;
  expect_at(running);
  step_->reports.push_back({Report::Moved, running, "it was found running there"});
}

}  // namespace sami::tde::qemu
