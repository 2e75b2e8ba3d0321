#include "runtime/notify.h"

#include <systemd/sd-daemon.h>

namespace sami::service_manager {

void ready() { sd_notify(0, "READY=1"); }

void reloading(Instant now) {
  sd_notify(0, ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(now.nanoseconds / 1000)).c_str());
}

void stopping() { sd_notify(0, "STOPPING=1"); }

void status(const std::string& sentence) {
  std::string line = "STATUS=";
  for (const char c : sentence) line += c == '\n' ? ' ' : c;
  sd_notify(0, line.c_str());
}

void alive() { sd_notify(0, "WATCHDOG=1"); }

std::optional<Duration> watchdog_interval() {
  std::uint64_t microseconds = 0;
  if (sd_watchdog_enabled(0, &microseconds) <= 0) return std::nullopt;
  return std::chrono::microseconds(microseconds / 2);
}

}  // namespace sami::service_manager
