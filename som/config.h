// The configuration of sami-som: packaging/examples/som.yaml as a value.
#pragma once

#include <string>
#include <vector>

#include "interfaces/transport/identity.h"
#include "protocol/som.h"
#include "runtime/config.h"
#include "runtime/log.h"

namespace sami::som {

// A TDE that may notify, and for which subjects. Patterns as in glob(7): "*", "tenant1-*".
struct TdeRule {
  std::string name;
  std::vector<std::string> subjects;
  friend bool operator==(const TdeRule&, const TdeRule&) = default;
};

struct Settings {
  std::string name;
  std::string domain;
  std::string listen;                  // "host:port"
  transport::Credentials credentials;
  std::string state_folder;
  std::string control_socket;
  std::vector<TdeRule> tdes;
  std::vector<std::string> agents;     // patterns of State Host names that may register
  protocol::SomConfig machine;         // identity, classes, deadlines, lease, limits
  std::size_t sessions = 20'000;
  LogLevel log_level = LogLevel::Info;
};

// Reads and checks every key. The values may be used only if config.errors() is empty afterwards.
Settings read_settings(Config& config);

struct LoadedSettings {
  Settings settings;
  std::vector<std::string> errors;     // "<file>:<line>:<column>: ..."; if not empty, settings must not be used
};
// The file and its conf.d, with the credentials (pki.h). Blocking.
LoadedSettings load_settings(const std::string& path);

// Keys that differ and need a restart, for SIGHUP. The others (log, classes, tdes, agents) are reloaded.
std::vector<std::string> restart_needed(const Settings& running, const Settings& wanted);

}  // namespace sami::som
