#include "cli/run.h"

#include "cli/output.h"

namespace sami::cli {

ExitCode report(std::ostream& err, const Problem& problem) {
  err << "sami: " << problem.message << "\n";
  return problem.code;
}

ExitCode exit_code_of(const api::Migration& migration) {
  if (migration.state() == "ROLLED_BACK") return ExitCode::Failed;
  if (migration.state() == "DONE_WITH_LOSS") return ExitCode::Loss;
  if (migration.state() == "IN_DOUBT") return ExitCode::InDoubt;
  return ExitCode::Done;
}

namespace {

// For somebody who waits: a migration in doubt does not go on by itself.
bool ended(const api::Migration& migration) { return migration.final() || migration.state() == "IN_DOUBT"; }

// Visits a Command: one overload per command.
class Runner {
 public:
  Runner(const Options& options, const Daemons& daemons, std::ostream& out, std::ostream& err)
      : daemons_(daemons), out_(out), err_(err), json_(options.connection.json) {}

  ExitCode operator()(const command::HostList&) { return print(master().hosts(), show_hosts); }
  ExitCode operator()(const command::HostShow& command) {
    auto answer = master().hosts();
    if (auto* problem = std::get_if<Problem>(&answer)) return report(err_, *problem);
    for (const auto& host : std::get<api::ListHostsReply>(answer).hosts()) {
      if (host.name() != command.host) continue;
      out_ << show_host(host, json_);
      return ExitCode::Done;
    }
    return report(err_,
                  {ExitCode::NotFound, "no State Host '" + command.host + "' has registered; see `sami host list`"});
  }
  ExitCode operator()(const command::HostDrain& command) {
    api::DrainHostRequest request;
    request.set_host(command.host);
    request.set_on(!command.undo);
    return quiet(master().drain(request));
  }
  ExitCode operator()(const command::VmList&) { return print(master().vms(), show_vms); }
  ExitCode operator()(const command::VmShow& command) {
    auto answer = master().vms();
    if (auto* problem = std::get_if<Problem>(&answer)) return report(err_, *problem);
    for (const auto& vm : std::get<api::ListVmsReply>(answer).vms()) {
      if (vm.subject().id() != command.vm) continue;
      out_ << show_vm(vm, json_);
      return ExitCode::Done;
    }
    return report(err_, {ExitCode::NotFound, "no VM '" + command.vm + "' is known; see `sami vm list`"});
  }
  ExitCode operator()(const command::MigrationList& command) {
    api::ListMigrationsRequest request;
    request.set_subject_id(command.vm);
    request.set_open_only(command.open_only);
    return print(master().migrations(request), show_migrations);
  }
  ExitCode operator()(const command::MigrationShow& command) {
    return print(master().migration(command.id), show_migration);
  }
  ExitCode operator()(const command::MigrationWatch& command) { return watch(command.id, 86'400); }
  ExitCode operator()(const command::MigrationPlan& command) { return plan(command.vm, command.server); }
  ExitCode operator()(const command::MigrationStart& command) {
    if (command.dry_run) return plan(command.vm, command.server);
    api::PlanRequest request;
    request.set_subject_id(command.vm);
    request.set_destination_place(command.server);
    request.set_force(command.force);
    auto answer = master().start(request);
    if (auto* problem = std::get_if<Problem>(&answer)) return report(err_, *problem);
    const auto& reply = std::get<api::StartReply>(answer);
    if (command.wait) return watch(reply.migration_id(), command.wait_seconds);
    out_ << reply.migration_id() << "\n";
    return ExitCode::Done;
  }
  ExitCode operator()(const command::MigrationAbort& command) {
    return quiet(master().abort(command.id, command.reason));
  }
  ExitCode operator()(const command::MigrationForce& command) { return quiet(master().force(command.id)); }
  ExitCode operator()(const command::MigrationResolve& command) {
    api::ResolveRequest request;
    request.set_id(command.id);
    request.set_outcome(command.at_destination ? common::v1::OUTCOME_AT_DESTINATION : common::v1::OUTCOME_AT_SOURCE);
    return quiet(master().resolve(request));
  }
  ExitCode operator()(const command::StateShow& command) { return run_state(command, json_, master(), out_, err_); }
  ExitCode operator()(const command::StateDiff& command) { return run_state(command, json_, master(), out_, err_); }
  ExitCode operator()(const command::TopologyShow& command) { return topology(command.vm, ""); }
  ExitCode operator()(const command::TopologyPath& command) { return topology(command.vm, command.server); }
  ExitCode operator()(const command::Notify& command) {
    return run_notify(command, json_, *daemons_.topology(), out_, err_);
  }
  ExitCode operator()(const command::Audit& command) {
    api::AuditRequest request;
    request.set_subject_id(command.vm);
    request.set_migration_id(command.migration);
    request.set_from_wall_microseconds(command.from);
    request.set_to_wall_microseconds(command.to);
    request.set_limit(command.limit);
    return print(master().audit(request), show_audit);
  }
  ExitCode operator()(const command::Status& command) {
    if (command.daemon == "soa") return print(daemons_.agent()->status(), show_status);
    if (command.daemon == "tde") return print(daemons_.topology()->status(), show_status);
    return print(master().status(), show_status);
  }
  ExitCode operator()(const command::PkiInit& command) { return run_pki(command, out_, err_); }
  ExitCode operator()(const command::PkiIssue& command) { return run_pki(command, out_, err_); }
  ExitCode operator()(const command::PkiShow& command) { return run_pki(command, out_, err_); }

 private:
  MasterClient& master() {
    if (!master_) master_ = daemons_.master();
    return *master_;
  }
  template <typename T>
  ExitCode print(const Answer<T>& answer, std::string (*show)(const T&, bool)) {
    if (const auto* problem = std::get_if<Problem>(&answer)) return report(err_, *problem);
    out_ << show(std::get<T>(answer), json_);
    return ExitCode::Done;
  }
  ExitCode quiet(const Answer<api::Empty>& answer) {
    if (const auto* problem = std::get_if<Problem>(&answer)) return report(err_, *problem);
    return ExitCode::Done;
  }
  ExitCode plan(const std::string& vm, const std::string& server) {
    api::PlanRequest request;
    request.set_subject_id(vm);
    request.set_destination_place(server);
    auto answer = master().plan(request);
    const ExitCode printed = print(answer, show_plan);
    if (printed != ExitCode::Done) return printed;
    return std::get<api::PlanReply>(answer).findings().empty() ? ExitCode::Done : ExitCode::Failed;
  }
  ExitCode topology(const std::string& vm, const std::string& server) {
    api::TopologyRequest request;
    request.set_subject_id(vm);
    request.set_destination_place(server);
    return print(master().topology(request), show_topology);
  }
  ExitCode watch(const std::string& id, std::uint32_t seconds) {
    api::Migration last;
    const auto answer = master().watch(id, seconds, [&](const api::Migration& migration) {
      out_ << show_progress(migration, json_) << std::flush;
      last = migration;
      return !ended(migration);
    });
    if (ended(last)) return exit_code_of(last);
    const auto* problem = std::get_if<Problem>(&answer);
    if (problem != nullptr && problem->code != ExitCode::TimedOut) return report(err_, *problem);
    return report(err_, {ExitCode::TimedOut, "the migration goes on; `sami migration watch " + id + "`"});
  }

  const Daemons& daemons_;
  std::ostream& out_;
  std::ostream& err_;
  bool json_;
  std::unique_ptr<MasterClient> master_;
};

}  // namespace

ExitCode run(const Options& options, const Daemons& daemons, std::ostream& out, std::ostream& err) {
  return std::visit(Runner(options, daemons, out, err), options.command);
}

}  // namespace sami::cli
