// TCP windows for the connection tracking driver: opened with privileges that are given up right afterwards.
#pragma once

#include "kernel/windows/kernel_windows.h"
#include "runtime/log.h"
#include "runtime/result.h"
#include "soa/config.h"

namespace sami::soa {

struct OpenedWindows {
  windows::KernelWindows kernel;
  state::WindowAccess access;  // to kernel
};

// Logs how TCP windows are carried. Error: Unsupported, where exact windows are configured and this host has none; it
// says what is missing.
Result<OpenedWindows> open_windows(Windows wanted, Log& log);

}  // namespace sami::soa
