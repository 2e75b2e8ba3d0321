#include "lab/poll.h"

#include <thread>

namespace sami::lab {

bool poll_until(milliseconds deadline, const std::function<bool()>& condition, milliseconds interval) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return condition();
    std::this_thread::sleep_for(interval);
  }
  return true;
}

}  // namespace sami::lab
