// sami-soa: the State Orchestration Agent of one State Host. Runs in the host's network namespace.
#include <google/protobuf/stubs/logging.h>
#include <grpc/grpc.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdio>

#include "interfaces/transport/grpc_log.h"
#include "interfaces/transport/grpc_server.h"
#include "kernel/netlink/conntrack.h"
#include "runtime/daemon.h"
#include "soa/agent.h"
#include "soa/control.h"
#include "soa/privileges.h"
#include "soa/windows.h"

namespace {

constexpr const char* kConfig = "/etc/sami/soa.yaml";
int failed(const sami::Error& error, int code = 1) {
  std::fprintf(stderr, "sami-soa: %s\n", error.message.c_str());
  return code;
}

int run(const sami::soa::Settings& settings, const std::string& config) {
  using namespace sami;
  ::umask(077);
  Log log(settings.log_level);
  const auto windows = soa::open_windows(settings.windows, log);  // before the capabilities for it are given up
  if (!windows) return failed(windows.error());
  if (auto kept = soa::keep_net_admin_only(); !kept) return failed(kept.error());
  transport::log_grpc_to(log);
  google::protobuf::SetLogHandler(nullptr);  // what it would say of malformed input is the peer's to choose
  ::grpc_init();                             // never undone: the end of the library may wait 10 s for a poller

  auto conntrack = netlink::open_kernel_conntrack();
  if (!conntrack) return failed(conntrack.error());
  auto connection_tracking = state::make_connection_tracking_driver(**conntrack, settings.connection_tracking,
                                                                    system_clock(), windows->access);
  auto journal = open_journal(settings.state);
  if (!journal) return failed(journal.error());
  auto audit = open_audit(settings.state);
  if (!audit) return failed(audit.error());
  Loop loop;
  auto client = transport::make_agent_client(settings.client, loop);
  if (!client) return failed(client.error());
  soa::Agent agent(settings.agent,
                   {loop, system_clock(), **journal, **audit, **client, {connection_tracking.get()}, log});
  soa::Control control(settings.agent.machine.host, agent, loop);
  auto socket = transport::start_local_server(settings.control_socket, {&control.service()});
  if (!socket) return failed(socket.error());

  loop.on_signals({SIGTERM, SIGINT}, [&](int) { loop.stop(); });
  loop.on_signals({SIGHUP}, [&](int) { soa::reload(config, loop, log); });
  feed_watchdog(loop);
  agent.start();
  service_manager::ready();
  loop.run();
  service_manager::stopping();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = sami::parse_daemon_options(argc, argv, kConfig);
  if (!options) return failed(options.error(), 2);
  if (options->help) {
    std::fputs(sami::daemon_usage("sami-soa", "the State Orchestration Agent of one State Host", kConfig).c_str(),
               stdout);
    return 0;
  }
  if (options->version) return std::puts("sami-soa " SAMI_VERSION) < 0 ? 1 : 0;
  const auto settings = sami::soa::load_settings(options->config);
  if (!settings) return failed(settings.error(), 2);
  if (options->check_config) return std::puts("ok") < 0 ? 1 : 0;
  return run(*settings, options->config);
}
