#include "soa/windows.h"

namespace sami::soa {

namespace {

void log_windows(const state::WindowAccess& access, Log& log) {
  if (const auto available = access.windows->available(); !available) {
    return log.warning("TCP windows are liberal", {Field(available.error())});
  }
  if (const auto tracked = access.tracker->available(); !tracked) {
    return log.warning("TCP windows are exact, but every connection is read in the pause", {Field(tracked.error())});
  }
  log.info("TCP windows are exact");
}

}  // namespace

Result<OpenedWindows> open_windows(Windows wanted, Log& log) {
  OpenedWindows opened;
  if (wanted == Windows::Liberal) {
    log.info("TCP windows are liberal, by configuration");
    return opened;
  }
  opened.kernel = windows::open_kernel_windows();
  opened.access.windows = opened.kernel.windows.get();
  opened.access.barrier = opened.kernel.barrier.get();
  opened.access.tracker = opened.kernel.tracker.get();
  const auto available = opened.kernel.windows->available();
  if (!available && wanted == Windows::Exact) return tl::unexpected(available.error());
  log_windows(opened.access, log);
  return opened;
}

}  // namespace sami::soa
