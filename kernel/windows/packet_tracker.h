// The kernel twin of PacketTracker over tracker.bpf.c. Private to kernel/windows.
#pragma once

#include <memory>

#include "kernel/windows/windows.h"

namespace sami::windows {

// Loads the program and attaches nothing yet. Never fails: available() says what is missing.
std::unique_ptr<PacketTracker> open_packet_tracker();

}  // namespace sami::windows
