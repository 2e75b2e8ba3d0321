// The service manager (systemd, sd_notify(3)). Without one (NOTIFY_SOCKET unset) every call does nothing. Thread-safe.
#pragma once

#include <optional>
#include <string>

#include "runtime/clock.h"

namespace sami::service_manager {

void ready();
void reloading(Instant now);        // followed by ready()
void stopping();
void status(const std::string& sentence);
void alive();                       // feeds the watchdog
// How often to call alive(): half of WatchdogSec=. Nothing when there is no watchdog.
std::optional<Duration> watchdog_interval();

}  // namespace sami::service_manager
