#include "cli/output.h"
#include "cli/run.h"

namespace sami::cli {
namespace {

if_m_t::v1::Phase phase_of(const std::string& word) {
  if (word == "announced") return if_m_t::v1::PHASE_ANNOUNCED;
  if (word == "paused") return if_m_t::v1::PHASE_PAUSED;
  if (word == "resumed") return if_m_t::v1::PHASE_RESUMED;
  if (word == "cancelled") return if_m_t::v1::PHASE_CANCELLED;
  if (word == "moved") return if_m_t::v1::PHASE_MOVED;
  return if_m_t::v1::PHASE_PATH_FAILED;
}

common::v1::Cause cause_of(const std::string& word, if_m_t::v1::Phase phase) {
  if (word == "path-failure") return common::v1::CAUSE_PATH_FAILURE;
  if (word == "load-balance") return common::v1::CAUSE_LOAD_BALANCE;
  if (word == "maintenance") return common::v1::CAUSE_MAINTENANCE;
  if (word.empty() && phase == if_m_t::v1::PHASE_PATH_FAILED) return common::v1::CAUSE_PATH_FAILURE;
  return common::v1::CAUSE_VM_MIGRATION;
}

// What `--wait` waits for: standby after "announced", the verdict after "paused", the end after an outcome.
bool arrived(if_m_t::v1::Phase phase, const api::MoveStatus& move) {
  const std::string& told = move.instruction();
  if (told == "Concluded" || told == "Refused") return true;
  if (phase == if_m_t::v1::PHASE_ANNOUNCED) return told == "MayPause" || told == "Cancel";
  if (phase == if_m_t::v1::PHASE_PAUSED) return told == "Continue" || told == "Cancel";
  return false;
}

ExitCode exit_code_of(const api::MoveStatus& move) {
  if (move.instruction() == "Cancel" || move.instruction() == "Refused") return ExitCode::Refused;
  if (move.instruction() == "Concluded" && move.detail() == "DONE_WITH_LOSS") return ExitCode::Loss;
  if (move.instruction() == "Concluded" && move.detail() == "ROLLED_BACK") return ExitCode::Failed;
  return ExitCode::Done;
}

}  // namespace

ExitCode run_notify(const command::Notify& command, bool json, TopologyClient& topology, std::ostream& out,
                    std::ostream& err) {
  const if_m_t::v1::Phase phase = phase_of(command.phase);
  const bool begins = phase == if_m_t::v1::PHASE_ANNOUNCED || phase == if_m_t::v1::PHASE_MOVED ||
                      phase == if_m_t::v1::PHASE_PATH_FAILED;
  if (begins && command.server.empty())
    return report(err,
                  {ExitCode::Usage, "notify " + command.phase + " needs the server that the VM goes to: sami notify " +
                                        command.phase + " " + command.vm + " SERVER"});
  api::NotifyRequest request;
  request.set_phase(phase);
  request.set_subject_id(command.vm);
  request.set_destination_place(command.server);
  request.set_notification_id(command.id);
  request.set_cause(cause_of(command.cause, phase));
  request.set_force(command.force);
  auto answer = topology.notify(request);
  if (const auto* problem = std::get_if<Problem>(&answer)) return report(err, *problem);
  const std::string id = std::get<api::NotifyReply>(answer).notification_id();
  if (!command.wait) {
    out << id << "\n";
    return ExitCode::Done;
  }
  api::MoveStatus last;
  bool reached = false;
  const auto watched = topology.watch(id, command.wait_seconds, [&](const api::MoveStatus& move) {
    out << show_move(move, json) << std::flush;
    last = move;
    reached = arrived(phase, move);
    return !reached;
  });
  if (const auto* problem = std::get_if<Problem>(&watched)) return report(err, *problem);
  if (!reached)
    return report(err, {ExitCode::Failed, "the TDE ended the watch before an answer; see `sami status tde`"});
  return exit_code_of(last);
}

}  // namespace sami::cli
