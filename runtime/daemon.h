// What the mains of the daemons share: their command line (--config FILE, --check-config, --version, --help), and
// feeding the service manager's watchdog.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "runtime/loop.h"
#include "runtime/notify.h"
#include "runtime/result.h"

namespace sami {

struct DaemonOptions {
  std::string config;
  bool check_config = false;
  bool version = false;
  bool help = false;
};

// Error: InvalidInput, saying which argument and what was expected.
inline Result<DaemonOptions> parse_daemon_options(int argc, const char* const* argv, std::string default_config) {
  DaemonOptions options{std::move(default_config), false, false, false};
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--config" && i + 1 < argc) {
      options.config = argv[++i];
    } else if (argument.starts_with("--config=")) {
      options.config = argument.substr(std::string_view("--config=").size());
    } else if (argument == "--check-config") {
      options.check_config = true;
    } else if (argument == "--version") {
      options.version = true;
    } else if (argument == "--help") {
      options.help = true;
    } else {
      return failure(ErrorKind::InvalidInput, "unknown or incomplete argument " + argument +
                                                  "; expected --config FILE, --check-config, --version or --help");
    }
  }
  return options;
}

// name and purpose: "sami-soa", "the State Orchestration Agent of one State Host".
inline std::string daemon_usage(const std::string& name, const std::string& purpose,
                                const std::string& default_config) {
  return name + ": " + purpose +
         "\n\n"
         "  --config FILE    configuration (default " +
         default_config +
         ")\n"
         "  --check-config   check it, print \"ok\" or every error with file, line and column, and exit\n"
         "  --version        print the version and exit\n"
         "  --help           print this and exit\n\n"
         "SIGHUP takes a new log level from the configuration. SIGTERM stops.\n"
         "Exit codes: 0 stopped or checked, 1 cannot run, 2 wrong arguments or configuration.\n";
}

// From now on, as long as the loop runs. Does nothing without a watchdog.
inline void feed_watchdog(Loop& loop) {
  const auto interval = service_manager::watchdog_interval();
  if (!interval) return;
  service_manager::alive();
  loop.call_after(*interval, [&loop] { feed_watchdog(loop); });
}

}  // namespace sami
