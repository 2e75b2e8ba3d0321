#include "tde/qemu/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "tde/qemu/monitor.h"
#include "tde/qemu/qmp.h"

namespace sami::tde::qemu {

namespace event = monitor_event;
namespace if_m_t = ::sami::if_m_t::v1;
using Instruction = protocol::HypervisorInstruction::Kind;

namespace {

constexpr Duration kBehindTheMachine = std::chrono::milliseconds(500);
constexpr Duration kNotifyAgain = std::chrono::milliseconds(100);

std::optional<Instruction> instruction(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Instruction>, 6> kNames{{{"MayPause", Instruction::MayPause},
                                                                            {"Continue", Instruction::Continue},
                                                                            {"Cancel", Instruction::Cancel},
                                                                            {"FindOut", Instruction::FindOut},
                                                                            {"Concluded", Instruction::Concluded},
                                                                            {"Refused", Instruction::Refused}}};
  for (const auto& [known, kind] : kNames) {
    if (known == name) return kind;
  }
  return std::nullopt;
}

MonitorConfig monitor_config(const VirtualMachine& vm, const Config& config, const protocol::GateConfig& gate) {
  MonitorConfig made;
  made.subject_id = vm.subject_id;
  for (const auto& [server, path] : vm.sockets) made.servers.push_back(server);
  made.precopy_bandwidth = config.precopy_bandwidth;
  made.full_bandwidth = config.full_bandwidth;
  made.no_verdict = gate.no_verdict;
  made.paused_deadline = gate.verdict_deadline + kBehindTheMachine;
  return made;
}

}  // namespace

// One VM: its monitor machine, its QMP clients, and what the entity is still to be told.
class Gate::Vm {
 public:
  Vm(const VirtualMachine& vm, const Config& config, const protocol::GateConfig& gate, Entity& entity, Loop& loop,
     const Log& log)
      : id_(vm.subject_id), monitor_(monitor_config(vm, config, gate)), entity_(entity), loop_(loop), log_(log) {
    for (const auto& [server, path] : vm.sockets) clients_[server] = qmp::make_client(path, loop);
  }
  ~Vm() {
    *alive_ = false;
    loop_.cancel(timer_);
    loop_.cancel(again_);
  }
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  void start() {
    for (const auto& move : entity_.moves()) {
      if (move.subject_id != id_ || move.state == protocol::to_string(protocol::GateState::Concluding)) continue;
      if (!clients_.contains(move.source_place) || !clients_.contains(move.destination_place)) continue;
      log_.info("taking over an open move", {{"vm", id_}, {"move", move.notification_id}});
      feed(event::Adopted{move.source_place, move.destination_place});
      follow(move.notification_id);
    }
    for (auto& [server, client] : clients_) client->start(callbacks(server));
  }

 private:
  qmp::Client::Callbacks callbacks(const std::string& server) {
    return {.on_connected =
                [this, server](const std::string& version) {
                  log_.info("connected to QEMU", {{"vm", id_}, {"server", server}, {"version", version}});
                  feed(event::Connected{server});
                },
            .on_event = [this, server](const qmp::Event& event) { take(server, event); },
            .on_disconnected =
                [this, server](const Error& reason) {
                  log_.info("no QEMU answers", {{"vm", id_}, {"server", server}, Field(reason)});
                  feed(event::Disconnected{server});
                }};
  }

  void take(const std::string& server, const qmp::Event& what) {
    if (what.name == "STOP") return feed(event::Stopped{server});
    if (what.name == "RESUME") return feed(event::Resumed{server});
    if (what.name != "MIGRATION") return;
    log_.debug("migration", {{"vm", id_}, {"server", server}, {"status", what.data.text("status").value_or("")}});
    feed(event::MigrationChanged{server, migration(what.data.text("status").value_or(""))});
  }

  // One step of the monitor: commands go out within the call, what the entity is to be told afterwards.
  void feed(const MonitorEvent& what) {
    const auto place = entity_.places().find(id_);
    const auto step = monitor_.step(loop_.now(), place == entity_.places().end() ? "" : place->second, what);
    for (const auto& note : step.notes) log_.info(note, {{"vm", id_}});
    for (const auto& command : step.commands) carry_out(command);
    for (const auto& report : step.reports) outbox_.push_back(report);
    if (!step.reports.empty()) later([this] { deliver(); });
    loop_.cancel(timer_);
    const Instant next = monitor_.next_deadline();
    timer_ = next == Instant::never() ? 0 : loop_.call_at(next, [this] {
      timer_ = 0;
      feed(event::Tick{});
    });
  }

  void later(std::function<void()> task) {
    loop_.post([alive = alive_, task = std::move(task)] {
      if (*alive) task();
    });
  }

  // ---- to QEMU

  void carry_out(const MonitorCommand& command) {
    using Kind = MonitorCommand::Kind;
    qmp::Client& client = *clients_.at(command.server);
    const std::string& server = command.server;
    switch (command.kind) {
      case Kind::Connect: return client.connect_now();
      case Kind::Prepare:
        return ask(command, qmp::set_capabilities({"events", "pause-before-switchover"}), [](const qmp::Fields&) {});
      case Kind::ReadStatus:
        return ask(command, qmp::query_status(), [this, server](const qmp::Fields& fields) {
          feed(event::StatusRead{server, run_state(fields.text("status").value_or(""))});
        });
      case Kind::ReadMigration:
        return ask(command, qmp::query_migrate(), [this, server](const qmp::Fields& fields) {
          feed(event::MigrationRead{server, migration(fields.text("status").value_or(""))});
        });
      case Kind::ReadBandwidth:
        return ask(command, qmp::query_migrate_parameters(), [this, server](const qmp::Fields& fields) {
          feed(event::BandwidthRead{server, fields.number("max-bandwidth").value_or(0)});
        });
      case Kind::SetBandwidth: return ask(command, qmp::set_bandwidth(command.value), [](const qmp::Fields&) {});
      case Kind::Continue:
        log_.info("goes on", {{"vm", id_}, {"server", server}});
        return ask(command, qmp::migrate_continue(), [](const qmp::Fields&) {});
      case Kind::Cancel:
        log_.info("goes back", {{"vm", id_}, {"server", server}});
        return ask(command, qmp::migrate_cancel(), [](const qmp::Fields&) {});
    }
  }

  void ask(const MonitorCommand& command, const qmp::Command& spelled, std::function<void(const qmp::Fields&)> taken) {
    clients_.at(command.server)
        ->execute(spelled, [this, command, taken = std::move(taken)](Result<qmp::Fields> answer) {
          if (answer) return taken(*answer);
          if (answer.error().kind == ErrorKind::Reconnect) return;  // on_connected or on_disconnected says what is next
          feed(event::Refused{command.server, to_string(command), answer.error().message});
        });
  }

  // ---- to the entity

  void deliver() {
    if (again_ != 0) return;
    while (!outbox_.empty()) {
      const MonitorReport report = outbox_.front();
      if (!tell(report)) {
        again_ = loop_.call_after(kNotifyAgain, [this] {
          again_ = 0;
          deliver();
        });
        return;
      }
      outbox_.pop_front();
    }
  }

  // False: say it again later.
  bool tell(const MonitorReport& report) {
    using Kind = MonitorReport::Kind;
    if (report.kind == Kind::Announced) return announce(report.destination);
    Notification what;
    what.subject_id = id_;
    what.actor = "qemu";
    what.notification_id = move_;
    if (report.kind == Kind::Paused) what.phase = if_m_t::PHASE_PAUSED;
    if (report.kind == Kind::AtSource) what.phase = if_m_t::PHASE_CANCELLED;
    if (report.kind == Kind::AtDestination) what.phase = if_m_t::PHASE_RESUMED;
    if (report.kind == Kind::Moved || (report.kind == Kind::AtDestination && move_.empty())) {
      what.phase = if_m_t::PHASE_MOVED;
      what.destination_place = report.destination;
      what.notification_id.clear();
    }
    const auto said = entity_.notify(what);
    if (!said && said.error().kind == ErrorKind::Retry) return false;
    if (!said) log_.warning("not taken", {{"vm", id_}, {"phase", if_m_t::Phase_Name(what.phase)}, Field(said.error())});
    if (report.kind != Kind::Paused) {
      watch_.reset();
      move_.clear();
    }
    return true;
  }

  bool announce(const std::string& destination) {
    using Why = event::NotAnnounced::Why;
    const auto begun = entity_.notify({.phase = if_m_t::PHASE_ANNOUNCED,
                                       .subject_id = id_,
                                       .destination_place = destination,
                                       .notification_id = {},
                                       .cause = common::CAUSE_VM_MIGRATION,
                                       .force = false,
                                       .actor = "qemu"});
    if (begun) {
      feed(event::Announced{});
      follow(*begun);
      return true;
    }
    const auto outlook = entity_.outlook(id_, destination);
    const bool nothing = outlook && outlook->plan.transfers.empty() && outlook->plan.retained.empty();
    const Why why = begun.error().kind == ErrorKind::Retry ? Why::NotNow : nothing ? Why::NothingToMove : Why::Refused;
    feed(event::NotAnnounced{why, begun.error().message});
    return true;
  }

  void follow(const std::string& notification_id) {
    move_ = notification_id;
    auto watch = entity_.watch(notification_id, [this](const MoveStatus& status) {
      if (const auto kind = instruction(status.instruction)) feed(event::Told{*kind});
    });
    if (watch) watch_ = std::move(*watch);
  }

  std::string id_;
  Monitor monitor_;
  Entity& entity_;
  Loop& loop_;
  Log log_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::map<std::string, std::unique_ptr<qmp::Client>> clients_;
  std::deque<MonitorReport> outbox_;
  std::string move_;  // notification id
  std::shared_ptr<void> watch_;
  Loop::TimerId timer_ = 0;
  Loop::TimerId again_ = 0;
};

Gate::Gate(const Config& config, const protocol::GateConfig& gate, Entity& entity, Loop& loop, Log log) {
  for (const auto& vm : config.virtual_machines) {
    vms_.push_back(std::make_unique<Vm>(vm, config, gate, entity, loop, log));
  }
}

Gate::~Gate() = default;

void Gate::start() {
  for (const auto& vm : vms_) vm->start();
}

}  // namespace sami::tde::qemu
