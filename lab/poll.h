// Waiting for a condition: look, and look again until it holds or the deadline has passed. Blocks the caller.
#pragma once

#include <chrono>
#include <functional>

namespace sami::lab {

using std::chrono::milliseconds;

// True as soon as `condition` returns true; false when `deadline` has passed without it. The condition is looked at
// once more at the deadline. `interval` bounds how late the condition is noticed.
bool poll_until(milliseconds deadline, const std::function<bool()>& condition, milliseconds interval = milliseconds(5));

}  // namespace sami::lab
