// The configuration of sami-soa: packaging/examples/soa.yaml.
#pragma once

#include <string>

#include "interfaces/transport/transport.h"
#include "runtime/config.h"
#include "runtime/log.h"
#include "soa/agent.h"
#include "state/connection_tracking/driver.h"

namespace sami::soa {

// How TCP windows are carried (docs/windows.md). Auto: exact where this host can.
enum class Windows { Auto, Exact, Liberal };

struct Settings {
  std::string domain;
  AgentConfig agent;  // machine.profile: contexts and external addresses
  state::ConnectionTrackingConfig connection_tracking;
  Windows windows = Windows::Auto;
  transport::ClientConfig client;
  std::string state;  // folder
  std::string control_socket;
  LogLevel log_level = LogLevel::Info;
};

// Error: InvalidInput; its message has all errors, one per line.
Result<Settings> read_settings(Config& config);
inline Result<Settings> read_settings(Config&& config) { return read_settings(config); }
// The same over the file and its conf.d, and the credentials must be this daemon's (pki.h). Blocking.
Result<Settings> load_settings(const std::string& path);

// SIGHUP: takes the log level from the file; whatever else changed there needs a restart. An error is logged and
// changes nothing. Blocking.
void reload(const std::string& path, Loop& loop, Log& log);

}  // namespace sami::soa
