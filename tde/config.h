// The configuration of sami-tde: packaging/examples/tde.yaml.
#pragma once

#include <string>

#include "interfaces/transport/transport.h"
#include "runtime/config.h"
#include "runtime/log.h"
#include "tde/entity.h"
#include "tde/qemu/gate.h"
#include "tde/topology.h"

namespace sami::tde {

struct Settings {
  std::string domain;
  EntityConfig entity;
  Topology topology;
  qemu::Config hypervisors;
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

}  // namespace sami::tde
