// sami-som: the State Orchestration Master.
#include <sys/stat.h>

#include <cstdio>

#include "interfaces/transport/grpc_log.h"
#include "interfaces/transport/grpc_server.h"
#include "runtime/audit.h"
#include "runtime/daemon.h"
#include "runtime/journal.h"
#include "som/config.h"
#include "som/lifecycle.h"
#include "som/operator.h"
#include "som/operator_service.h"
#include "som/shell.h"

namespace {

constexpr const char* kConfig = "/etc/sami/som.yaml";

int failed(const sami::Error& error, int code = 1) {
  std::fprintf(stderr, "sami-som: %s\n", error.message.c_str());
  return code;
}

int run(const sami::som::Settings& settings, const std::string& config) {
  using namespace sami;
  ::umask(077);
  Log log(settings.log_level);
  transport::log_grpc_to(log);

  auto journal = open_journal(settings.state_folder);
  if (!journal) return failed(journal.error());
  auto audit = open_audit(settings.state_folder);
  if (!audit) return failed(audit.error());
  Loop loop;
  som::AuditTrail trail(**audit, system_clock(), log);
  som::Shell shell(settings, loop, **journal, trail, system_clock(), log);   // the machine, its journal, its peers
  if (auto started = shell.start(); !started) return failed(started.error());

  som::Operator operations(shell, loop);
  som::OperatorService remote(operations, loop), local(operations, loop);
  transport::ServerConfig listen{settings.listen, settings.credentials, {}};
  listen.limits.sessions = settings.sessions;
  auto server = transport::start_server(listen, shell.handlers(), {&remote.service()}, loop);
  if (!server) return failed(server.error());
  auto control = transport::start_local_server(settings.control_socket, {&local.service()});
  if (!control) return failed(control.error());

  som::live(loop, config, shell, log);
  loop.run();
  remote.stop();
  local.stop();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = sami::parse_daemon_options(argc, argv, kConfig);
  if (!options) return failed(options.error(), 2);
  if (options->help) {
    std::fputs(sami::daemon_usage("sami-som", "the State Orchestration Master", kConfig).c_str(), stdout);
    return 0;
  }
  if (options->version) return std::puts("sami-som " SAMI_VERSION) < 0 ? 1 : 0;
  const auto loaded = sami::som::load_settings(options->config);
  for (const auto& error : loaded.errors) std::fprintf(stderr, "%s\n", error.c_str());
  if (!loaded.errors.empty()) return 2;
  if (options->check_config) return std::puts("ok") < 0 ? 1 : 0;
  return run(loaded.settings, options->config);
}
