#include "som/lifecycle.h"

#include <csignal>

#include "runtime/daemon.h"
#include "runtime/notify.h"

namespace sami::som {

void live(Loop& loop, const std::string& config, Shell& shell, Log log) {
  loop.on_signals({SIGTERM, SIGINT}, [&loop, log](int) {
    log.info("stopping");
    service_manager::stopping();
    loop.stop();
  });
  loop.on_signals({SIGHUP}, [config, &loop, &shell, log](int) mutable {
    service_manager::reloading(loop.now());
    reload(config, shell, log);
    service_manager::ready();
  });
  feed_watchdog(loop);
  const Settings& settings = shell.settings();
  log.info("sami-som " SAMI_VERSION " runs", {{"name", settings.name}, {"listen", settings.listen}});
  service_manager::ready();
}

void reload(const std::string& config, Shell& shell, Log& log) {
  const LoadedSettings loaded = load_settings(config);
  for (const auto& error : loaded.errors) log.error("not reloaded: " + error);
  if (!loaded.errors.empty()) return;
  for (const auto& key : restart_needed(shell.settings(), loaded.settings))
    log.warning("a changed key is not reloaded: it needs a restart", {{"key", key}});
  log.set_level(loaded.settings.log_level);
  shell.reload(loaded.settings);
  shell.audit().add("operator", "SIGHUP: log level, classes of new migrations, tdes and agents are reloaded");
}

}  // namespace sami::som
