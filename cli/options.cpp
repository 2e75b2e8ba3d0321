#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <sstream>

namespace sami::cli {
namespace {

constexpr const char* kFooter =
    "Exit codes: 0 done, 1 failed or rolled back, 2 usage, 3 not found, 4 denied, 5 unreachable, 6 refused in this\n"
    "state, 7 timed out waiting, 8 done with loss, 9 in doubt, 10 hosts differ (state diff).";

// Collects the parsed command; each subcommand's callback fills it in.
class Parser {
 public:
  Parser() : app_("sami: move flow-associated state with virtual machines", "sami") {
    app_.footer(kFooter);
    app_.require_subcommand(1);
    app_.set_version_flag("--version", std::string("sami ") + SAMI_VERSION);
    app_.option_defaults()->always_capture_default();
    connection_options();
    host_commands();
    vm_commands();
    migration_commands();
    state_commands();
    topology_commands();
    notify_command();
    audit_command();
    pki_commands();
    auto* status = app_.add_subcommand("status", "what a local daemon is doing");
    status->add_option("daemon", status_.daemon, "som, soa or tde")->check(CLI::IsMember({"som", "soa", "tde"}));
    status->callback([this] { command_ = status_; });
  }

  std::variant<Options, Stop> parse(int count, const char* const* arguments) {
    try {
      app_.parse(count, arguments);
    } catch (const CLI::ParseError& error) {
      std::ostringstream out, err;
      const int code = app_.exit(error, out, err);
      return Stop{code == 0 ? ExitCode::Done : ExitCode::Usage, code == 0 ? out.str() : err.str()};
    }
    return Options{connection_, command_};
  }

 private:
  template <typename Noun>
  CLI::App* noun(const std::string& name, const std::string& help, Noun&&) = delete;
  CLI::App* noun(const std::string& name, const std::string& help) {
    auto* app = app_.add_subcommand(name, help);
    app->require_subcommand(1);
    return app;
  }
  template <typename T>
  CLI::App* verb(CLI::App* parent, const std::string& name, const std::string& help, T& value) {
    auto* app = parent->add_subcommand(name, help);
    app->callback([this, &value] { command_ = value; });
    return app;
  }

  void connection_options() {
    app_.add_option("--som-socket", connection_.som_socket, "local control socket of sami-som")
        ->envname("SAMI_SOM_SOCKET");
    app_.add_option("--tde-socket", connection_.tde_socket, "local control socket of sami-tde")
        ->envname("SAMI_TDE_SOCKET");
    app_.add_option("--soa-socket", connection_.soa_socket, "local control socket of sami-soa")
        ->envname("SAMI_SOA_SOCKET");
    auto* master =
        app_.add_option("--master", connection_.master, "the SOM at host:port, over mTLS")->envname("SAMI_MASTER");
    app_.add_option("--master-name", connection_.master_name, "name in the SOM's certificate")
        ->envname("SAMI_MASTER_NAME");
    app_.add_option("--ca", connection_.ca, "CA certificate")->envname("SAMI_CA")->needs(master);
    app_.add_option("--certificate", connection_.certificate, "certificate, role operator or viewer")
        ->envname("SAMI_CERTIFICATE")
        ->needs(master);
    app_.add_option("--key", connection_.key, "its private key")->envname("SAMI_KEY")->needs(master);
    app_.add_option("--timeout", connection_.timeout_seconds, "seconds to wait for an answer")
        ->check(CLI::Range(1, 3600));
    app_.add_option_function<std::string>(
            "-o,--output", [this](const std::string& format) { connection_.json = format == "json"; }, "table or json")
        ->check(CLI::IsMember({"table", "json"}));
    app_.fallthrough();
  }

  void host_commands() {
    auto* host = noun("host", "State Hosts");
    verb(host, "list", "all State Hosts that have registered", host_list_);
    verb(host, "show", "one State Host's profile", host_show_)->add_option("HOST", host_show_.host)->required();
    auto* drain = verb(host, "drain", "plan no new migrations over a State Host", host_drain_);
    drain->add_option("HOST", host_drain_.host)->required();
    drain->add_flag("--undo", host_drain_.undo, "take it into use again");
  }

  void vm_commands() {
    auto* vm = noun("vm", "subjects: VMs, servers, appliances");
    verb(vm, "list", "all known subjects", vm_list_);
    verb(vm, "show", "one subject", vm_show_)->add_option("VM", vm_show_.vm)->required();
  }

  void migration_commands() {
    auto* migration = noun("migration", "migrations of state");
    auto* list = verb(migration, "list", "migrations, oldest first", migration_list_);
    list->add_option("--vm", migration_list_.vm, "of this VM only");
    list->add_flag("--open", migration_list_.open_only, "only those that have not ended");
    verb(migration, "show", "one migration with its timeline and verdicts", migration_show_)
        ->add_option("ID", migration_show_.id)
        ->required();
    verb(migration, "watch", "follow a migration to its end", migration_watch_)
        ->add_option("ID", migration_watch_.id)
        ->required();
    auto* plan = verb(migration, "plan", "what a move would need, without doing anything", migration_plan_);
    plan->add_option("VM", migration_plan_.vm)->required();
    plan->add_option("SERVER", migration_plan_.server)->required();
    auto* start = verb(migration, "start", "have the VM's TDE begin a move", migration_start_);
    start->add_option("VM", migration_start_.vm)->required();
    start->add_option("SERVER", migration_start_.server)->required();
    start->add_flag("--force", migration_start_.force, "vote go whatever fails; audited");
    start->add_flag("--dry-run", migration_start_.dry_run, "as `plan`");
    start->add_flag("--wait", migration_start_.wait, "show progress until it ends");
    start->add_option("--wait-seconds", migration_start_.wait_seconds)->check(CLI::Range(1, 86400));
    auto* abort = verb(migration, "abort", "vote no-go: the VM stays where it is", migration_abort_);
    abort->add_option("ID", migration_abort_.id)->required();
    abort->add_option("--reason", migration_abort_.reason, "for the audit trail");
    verb(migration, "force", "vote go whatever fails; audited", migration_force_)
        ->add_option("ID", migration_force_.id)
        ->required();
    auto* resolve =
        verb(migration, "resolve", "say where the VM runs, for a migration IN_DOUBT; audited", migration_resolve_);
    resolve->add_option("ID", migration_resolve_.id)->required();
    resolve
        ->add_option_function<std::string>(
            "PLACE", [this](const std::string& place) { migration_resolve_.at_destination = place == "destination"; },
            "source or destination")
        ->required()
        ->check(CLI::IsMember({"source", "destination"}));
  }

  void state_commands() {
    auto* state = noun("state", "the state that State Hosts hold of a VM");
    auto* show = verb(state, "show", "records, in the field's words", state_show_);
    show->add_option("--host", state_show_.host, "State Host")->required();
    show->add_option("--vm", state_show_.vm, "VM")->required();
    show->add_option("--class", state_show_.state_class, "one state class only");
    show->add_option("--context", state_show_.context, "context of the host");
    auto* diff = verb(state, "diff", "compare two State Hosts", state_diff_);
    diff->add_option("--vm", state_diff_.vm, "VM")->required();
    diff->add_option("HOST1", state_diff_.first_host)->required();
    diff->add_option("HOST2", state_diff_.second_host)->required();
    diff->add_option("--class", state_diff_.state_class, "one state class only");
    diff->add_option("--context", state_diff_.context, "context of both hosts");
  }

  void topology_commands() {
    auto* topology = noun("topology", "places and paths, as the TDE knows them");
    verb(topology, "show", "servers, State Hosts and paths", topology_show_)->add_option("VM", topology_show_.vm);
    auto* path = verb(topology, "path", "transfers that a move to SERVER would need", topology_path_);
    path->add_option("VM", topology_path_.vm)->required();
    path->add_option("SERVER", topology_path_.server)->required();
  }

  void notify_command() {
    auto* notify = app_.add_subcommand("notify", "tell the local TDE what a VM does, as a hypervisor would");
    notify->callback([this] { command_ = notify_; });
    notify->add_option("PHASE", notify_.phase, "announced, paused, resumed, cancelled, moved or path-failed")
        ->required()
        ->check(CLI::IsMember({"announced", "paused", "resumed", "cancelled", "moved", "path-failed"}));
    notify->add_option("VM", notify_.vm)->required();
    notify->add_option("SERVER", notify_.server, "where it goes (announced, moved, path-failed)");
    notify->add_option("--id", notify_.id, "which move, if the VM has had several");
    notify->add_option("--cause", notify_.cause)
        ->check(CLI::IsMember({"vm-migration", "path-failure", "load-balance", "maintenance"}));
    notify->add_flag("--force", notify_.force, "vote go whatever fails; audited");
    notify->add_flag("--wait", notify_.wait, "wait for what this phase waits for: standby, the verdict, the end");
    notify->add_option("--wait-seconds", notify_.wait_seconds)->check(CLI::Range(1, 86400));
  }

  void audit_command() {
    auto* audit = app_.add_subcommand("audit", "what happened to a VM's flows, and when");
    audit->callback([this] { command_ = audit_; });
    audit->add_option("--vm", audit_.vm, "of this VM");
    audit->add_option("--migration", audit_.migration, "of this migration");
    const auto time = [](std::int64_t& target) {
      return [&target](const std::string& text) {
        if (!parse_time(text, static_cast<std::int64_t>(std::time(nullptr)) * 1'000'000, target))
          throw CLI::ValidationError("time",
                                     "'" + text + "': expected 2026-11-21T03:12, 03:12, or 10m, 2h, 3d (ago); UTC");
      };
    };
    audit->add_option_function<std::string>("--from", time(audit_.from), "2026-11-21T03:12, 03:12 or 2h (ago); UTC");
    audit->add_option_function<std::string>("--to", time(audit_.to), "likewise");
    audit->add_option("--limit", audit_.limit, "newest lines at most")->check(CLI::Range(1, 100000));
  }

  void pki_commands() {
    auto* pki = noun("pki", "a small embedded CA; any other CA works as well");
    auto* init = verb(pki, "init", "make a CA in FOLDER", pki_init_);
    init->add_option("FOLDER", pki_init_.folder)->required();
    init->add_option("--domain", pki_init_.domain, "trust domain of every identity")->required();
    auto* issue = verb(pki, "issue", "make a certificate and key in FOLDER", pki_issue_);
    issue->add_option("FOLDER", pki_issue_.folder)->required();
    issue->add_option("ROLE", pki_issue_.role, "som, soa, tde, operator or viewer")
        ->required()
        ->check(CLI::IsMember({"som", "soa", "tde", "operator", "viewer"}));
    issue->add_option("NAME", pki_issue_.name, "of the daemon or the person")->required();
    issue->add_option("--days", pki_issue_.days, "how long it is valid")->check(CLI::Range(1, 3650));
    issue->add_option("--host", pki_issue_.hosts, "DNS name or address it is reached at (role som)");
    verb(pki, "show", "whose certificate it is and until when", pki_show_)
        ->add_option("FILE", pki_show_.file)
        ->required();
  }

  CLI::App app_;
  Connection connection_;
  Command command_;
  command::HostList host_list_;
  command::HostShow host_show_;
  command::HostDrain host_drain_;
  command::VmList vm_list_;
  command::VmShow vm_show_;
  command::MigrationList migration_list_;
  command::MigrationShow migration_show_;
  command::MigrationWatch migration_watch_;
  command::MigrationPlan migration_plan_;
  command::MigrationStart migration_start_;
  command::MigrationAbort migration_abort_;
  command::MigrationForce migration_force_;
  command::MigrationResolve migration_resolve_;
  command::StateShow state_show_;
  command::StateDiff state_diff_;
  command::TopologyShow topology_show_;
  command::TopologyPath topology_path_;
  command::Notify notify_;
  command::Audit audit_;
  command::Status status_;
  command::PkiInit pki_init_;
  command::PkiIssue pki_issue_;
  command::PkiShow pki_show_;
};

// "10m", "2h", "3d": microseconds; 0 if it is none of these.
std::int64_t ago(const std::string& text) {
  char unit = 0;
  int amount = 0, used = 0;
  if (std::sscanf(text.c_str(), "%d%c%n", &amount, &unit, &used) != 2 ||
      static_cast<std::size_t>(used) != text.size() || amount < 0)
    return 0;
  const std::int64_t second = 1'000'000;
  switch (unit) {
    case 's': return amount * second;
    case 'm': return amount * second * 60;
    case 'h': return amount * second * 3600;
    case 'd': return amount * second * 86400;
    default: return 0;
  }
}

}  // namespace

std::variant<Options, Stop> parse_options(int count, const char* const* arguments) {
  return Parser().parse(count, arguments);
}

bool parse_time(const std::string& text, std::int64_t now, std::int64_t& result) {
  if (const std::int64_t before = ago(text); before != 0) {
    result = now - before;
    return true;
  }
  const std::time_t seconds = static_cast<std::time_t>(now / 1'000'000);
  std::tm fields{};
  gmtime_r(&seconds, &fields);
  fields.tm_sec = 0;
  for (const char* format : {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%H:%M:%S", "%H:%M"}) {
    std::tm candidate = fields;
    if (std::string(format) == "%Y-%m-%d") candidate.tm_hour = candidate.tm_min = 0;
    const char* end = strptime(text.c_str(), format, &candidate);
    if (end == nullptr || *end != '\0') continue;
    result = static_cast<std::int64_t>(timegm(&candidate)) * 1'000'000;
    return true;
  }
  return false;
}

}  // namespace sami::cli
