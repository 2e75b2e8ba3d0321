// How long a client waits before it dials again: 100 ms, doubled up to 5 s, of which a random half is taken off so that
// agents do not come back all at once.
#pragma once

#include <algorithm>
#include <random>

#include "runtime/clock.h"

namespace sami::transport {

class Backoff {
 public:
  static constexpr Duration minimum = std::chrono::milliseconds(100);
  static constexpr Duration maximum = std::chrono::seconds(5);
  // A session that lasted so long was a good one: the next wait is short again. One that ends at once was not.
  static constexpr Duration steady = std::chrono::seconds(5);

  template <typename Generator>
  Duration next(Generator& random) {
    const Duration present = delay_;
    delay_ = std::min(maximum, delay_ * 2);
    return Duration(std::uniform_int_distribution<std::int64_t>(present.count() / 2, present.count())(random));
  }
  void reset() { delay_ = minimum; }

 private:
  Duration delay_ = minimum;
};

}  // namespace sami::transport
