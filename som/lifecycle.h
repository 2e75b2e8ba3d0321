// How the daemon lives beside its work: signals, the service manager, reloading. Loop thread only.
#pragma once

#include <string>

#include "runtime/log.h"
#include "runtime/loop.h"
#include "som/shell.h"

namespace sami::som {

// SIGTERM and SIGINT stop the loop; SIGHUP reads `config` again; the watchdog is fed; tells the service manager that it
// is ready. All arguments must live as long as the loop runs.
void live(Loop& loop, const std::string& config, Shell& shell, Log log);

// Takes what can be taken from the file and logs what cannot. Errors in it are logged, and nothing changes.
void reload(const std::string& config, Shell& shell, Log& log);

}  // namespace sami::som
