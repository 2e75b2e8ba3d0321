// sami-tde: the Topology Discovery Entity, with the gate beside the hypervisors.
#include <google/protobuf/stubs/logging.h>
#include <grpc/grpc.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdio>

#include "interfaces/transport/grpc_log.h"
#include "interfaces/transport/grpc_server.h"
#include "runtime/daemon.h"
#include "tde/config.h"
#include "tde/control.h"
#include "tde/entity.h"
#include "tde/qemu/gate.h"

namespace {

constexpr const char* kConfig = "/etc/sami/tde.yaml";

int failed(const sami::Error& error, int code = 1) {
  std::fprintf(stderr, "sami-tde: %s\n", error.message.c_str());
  return code;
}

int run(const sami::tde::Settings& settings, const std::string& config) {
  using namespace sami;
  ::umask(077);
  Log log(settings.log_level);
  transport::log_grpc_to(log);
  google::protobuf::SetLogHandler(nullptr);  // what it would say of malformed input is the peer's to choose
  ::grpc_init();                             // never undone: the end of the library may wait 10 s for a poller

  auto journal = open_journal(settings.state);
  if (!journal) return failed(journal.error());
  auto audit = open_audit(settings.state);
  if (!audit) return failed(audit.error());
  Loop loop;
  auto client = transport::make_tde_client(settings.client, loop);
  if (!client) return failed(client.error());
  tde::Entity entity(settings.entity, settings.topology, {loop, system_clock(), **journal, **audit, **client, log});
  tde::qemu::Gate gate(settings.hypervisors, settings.entity.gate, entity, loop, log);
  tde::Control control(settings.entity.name, entity, loop);
  auto socket = transport::start_local_server(settings.control_socket, {&control.service()});
  if (!socket) return failed(socket.error());

  loop.on_signals({SIGTERM, SIGINT}, [&](int) { loop.stop(); });
  loop.on_signals({SIGHUP}, [&](int) { tde::reload(config, loop, log); });
  feed_watchdog(loop);
  entity.start();
  gate.start();
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
    std::fputs(sami::daemon_usage("sami-tde", "the Topology Discovery Entity with its gate", kConfig).c_str(), stdout);
    return 0;
  }
  if (options->version) return std::puts("sami-tde " SAMI_VERSION) < 0 ? 1 : 0;
  const auto settings = sami::tde::load_settings(options->config);
  if (!settings) return failed(settings.error(), 2);
  if (options->check_config) return std::puts("ok") < 0 ? 1 : 0;
  return run(*settings, options->config);
}
